def adan(w, g, m, d, n, g_prev, *, b1=0.98, b2=0.92, b3=0.99, eps=1e-8, eps_root=1e-8, wd=0.0):
    """Adam with Nesterov momentum by differences of gradients.

    diff = g - g_prev (0 at the first step)
    m = (1 - b1) * g + b1 * m;  d = (1 - b2) * diff + b2 * d
    n = (1 - b3) * (g + (1 - b2) * diff)^2 + b3 * n;  each corrected for its start at zero
    update = (m_hat + (1 - b2) * d_hat) / (sqrt(n_hat + eps_root) + eps) + wd * w

    Xie et al. 2022 (arXiv 2208.06677). Equals `optax.adan(learning_rate)`. The paper counts its
    betas the other way round (0.02, 0.08, 0.01) and has wd 0.02, applied by division.
    """
    diff = where(step < 2, 0.0, g - g_prev)
    m = interp(g, m, b1)
    d = interp(diff, d, b2)
    n = interp(square(g + (1 - b2) * diff), n, b3)
    m_hat = m / (1 - b1**step)
    d_hat = d / (1 - b2**step)
    n_hat = n / (1 - b3**step)
    update = (m_hat + (1 - b2) * d_hat) / (sqrt(n_hat + eps_root) + eps)
    return update + wd * w, m, d, n, g
