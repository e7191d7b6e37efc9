def core(
    w, g, m, v, s,
    *, b1_start=0.7375, b1_end=0.8125, b1_steps=250.0, b2=0.99, eps=1e-8,
    down=0.7375, up=1.2, s_min=1e-3, s_max=10.0, wd=0.1
):
    """Adam with the step sizes of Rprop, one for each parameter.

    b1 = b1_end + (b1_start - b1_end) * exp(-((step - 1) / b1_steps)^2)
    m = (1 - b1) * g + b1 * m_old;  v = (1 - b2) * g^2 + b2 * v;  u = m_hat / (sqrt(v_hat) + eps)
    s = s * up where m * m_old > 0, s * down where it is < 0, kept in [s_min, s_max]; s starts at 1
    update = s * (u + wd * |u| * w)

    Eckhoff and Reiher 2023 (arXiv 2307.15663), without the plasticity factors that freeze the
    parameters of the highest scores, which are off in the released code too (score_history=0). s is
    in units of the learning rate: the released code has 1e-6 and 1e-2 for 0.001.
    """
    b1 = interp(b1_end, b1_start, exp(-square((step - 1) / b1_steps)))
    old = m
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    agree = m * old
    s = where(step < 2, 1.0, s) * where(agree > 0, up, where(agree < 0, down, 1.0))
    s = max(min(s, s_max), s_min)
    u = m / (1 - b1**step) / (sqrt(v / (1 - b2**step)) + eps)
    return s * (u + wd * abs(u) * w), m, v, s
