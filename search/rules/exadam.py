def exadam(w, g, m, v, *, b1=0.9, b2=0.999, eps=1e-8, wd=0.0):
    """Adam whose moments correct each other, with the gradient itself in the step.

    d1 = 1 + v / (v + eps) * b2^step;  d2 = 1 + m^2 / (m^2 + eps) * b1^step, m and v as in adam
    update = (m + g) / (1 - b1^step) * d1 / (sqrt(v / (1 - b2^step) * d2) + eps) + wd * w

    Adly 2024 (arXiv 2412.20302).
    """
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    d1 = 1 + v / (v + eps) * b2**step
    d2 = 1 + square(m) / (square(m) + eps) * b1**step
    top = (m + g) / (1 - b1**step) * d1
    return top / (sqrt(v / (1 - b2**step) * d2) + eps) + wd * w, m, v
