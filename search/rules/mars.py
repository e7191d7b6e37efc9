def mars(w, g, m, v, g_prev, *, b1=0.95, b2=0.99, gamma=0.025, eps=1e-8, wd=0.0):
    """AdamW on gradients corrected by how they changed since the last step.

    c = g + gamma * b1 / (1 - b1) * (g - g_prev), where g - g_prev counts as 0 at the first step
    c = c / max(1, |c|), tensor by tensor
    m = (1 - b1) * c + b1 * m;  v = (1 - b2) * c^2 + b2 * v
    update = m_hat / (sqrt(v_hat) + eps) + wd * w

    Yuan et al. 2024 (arXiv 2411.10438), MARS-AdamW in the approximate form, whose g_prev is of the
    last batch. The released code trains vectors with AdamW. In pytorch_optimizer g_prev counts as 0
    at the first step.
    """
    diff = where(step < 2, 0.0, g - g_prev)
    c = g + gamma * b1 / (1 - b1) * diff
    c = c / max(1.0, norm(c))
    m = interp(c, m, b1)
    v = interp(square(c), v, b2)
    return m / (1 - b1**step) / (sqrt(v / (1 - b2**step)) + eps) + wd * w, m, v, g
