def diffgrad(w, g, m, v, g_prev, *, b1=0.9, b2=0.999, eps=1e-8):
    """Adam that takes half the step where the gradient does not change.

    friction = 1 / (1 + exp(-|g_prev - g|)), with g_prev zero at the first step
    update = friction * m_hat / (sqrt(v_hat) + eps), with m_hat and v_hat as in adam

    Dubey et al. 2019 (arXiv 1909.11015).
    """
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    friction = 1 / (1 + exp(-abs(g_prev - g)))
    return friction * (m / (1 - b1**step)) / (sqrt(v / (1 - b2**step)) + eps), m, v, g
