def cautious_adamw(w, g, m, v, *, b1=0.9, b2=0.999, eps=1e-8, wd=1e-4, floor=1e-3):
    """AdamW that leaves out what points against the gradient.

    u = m_hat / (sqrt(v_hat) + eps), with m_hat and v_hat as in adam
    mask = 1 where u * g > 0, else 0
    update = u * mask / max(mean(mask), floor) + wd * w

    Liang et al. 2024 (arXiv 2411.16085), with the released code's floor; constants are AdamW's.
    """
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    u = m / (1 - b1**step) / (sqrt(v / (1 - b2**step)) + eps)
    mask = u * g > 0
    return u * (mask / max(mean(mask), floor)) + wd * w, m, v
