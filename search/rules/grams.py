def grams(w, g, m, v, *, b1=0.9, b2=0.999, eps=1e-8, wd=0.0):
    """The size of Adam's step in the direction of the gradient's sign.

    update = sign(g) * |m_hat / (sqrt(v_hat) + eps)| + wd * w, with m_hat and v_hat as in adam

    Cao et al. 2024 (arXiv 2412.17107). pytorch_optimizer has b1 and 1 - b1 exchanged, and eps 1e-6.
    """
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    u = m / (1 - b1**step) / (sqrt(v / (1 - b2**step)) + eps)
    return sign(g) * abs(u) + wd * w, m, v
