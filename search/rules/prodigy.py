def prodigy(w, g, m, v, s, w0, d, r, *, b1=0.9, b2=0.999, eps=1e-8, d0=1e-6, coef=1.0, wd=0.0):
    """Adam whose rate is an estimate of the distance to the solution.

    rate = d * sqrt(1 - b2^step) / (1 - b1^step);  m, v as in adam, of d * g
    s = sqrt(b2) * s + rate * d / d0 * g;  r = sqrt(b2) * r + rate * d / d0 * <g, w0 - w>
    d = max(d, coef * r / sum|s|), from d0 on, sums over all tensors, w0 the initial parameters
    update = rate * (m / (sqrt(v) + d * eps) + wd * w)

    Mishchenko and Defazio 2023 (arXiv 2306.06101). With a learning rate of 1 it equals
    `optax.contrib.prodigy()`; there, as in the released code, a schedule enters s and r too.
    """
    w0 = where(step < 2, w, w0)
    d = where(step < 2, d0, d)
    rate = d * (sqrt(1 - b2**step) / (1 - b1**step))
    m = interp(d * g, m, b1)
    v = interp(square(d * g), v, b2)
    b3 = sqrt(b2)
    s = b3 * s + rate * d / d0 * g
    r = b3 * r + rate * d / d0 * global_dot(g, w0 - w)
    d = max(d, coef * r / global_dot(s, sign(s)))
    return rate * (m / (sqrt(v) + d * eps) + wd * w), m, v, s, w0, d, r
