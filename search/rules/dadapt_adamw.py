def dadapt_adamw(w, g, m, v, s, d, r, *, b1=0.9, b2=0.999, eps=1e-8, d0=1e-6, wd=0.0):
    """AdamW whose rate is a lower bound of the distance to the solution.

    rate = d * sqrt(1 - b2^step) / (1 - b1^step);  b = sqrt(b2)
    r = b * r + (1 - b) * rate * <g, s / (sqrt(v) + eps)>, of the old s and v, over all tensors
    m = (1 - b1) * rate * g + b1 * m;  v as in adam;  s = (1 - b) * rate * g + b * s
    d = max(d, r / ((1 - b) * sum|s|)), from d0 on
    update = m / (sqrt(v) + eps) + rate * wd * w

    Defazio and Mishchenko 2023 (arXiv 2301.07733). With a learning rate of 1 it equals
    `optax.contrib.dadapt_adamw()`; there a schedule enters m, s and r.
    """
    d = where(step < 2, d0, d)
    rate = d * (sqrt(1 - b2**step) / (1 - b1**step))
    b = sqrt(b2)
    r = interp(rate * global_dot(g, s / (sqrt(v) + eps)), r, b)
    m = interp(rate * g, m, b1)
    v = interp(square(g), v, b2)
    s = interp(rate * g, s, b)
    d = max(d, r / ((1 - b) * global_dot(s, sign(s))))
    return m / (sqrt(v) + eps) + rate * wd * w, m, v, s, d, r
