def radam(w, g, m, v, *, b1=0.9, b2=0.999, eps=1e-8, threshold=5.0):
    """Adam that leaves out its denominator while that is still too uncertain.

    m, v as in adam;  rho_inf = 2 / (1 - b2) - 1
    rho = rho_inf - 2 * step * b2^step / (1 - b2^step)
    r = sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))
    update = r * m_hat / (sqrt(v_hat) + eps) where rho >= threshold, else m_hat

    Liu et al. 2020 (arXiv 1908.03265), whose threshold is 4. Equals `optax.radam(learning_rate)`.
    PyTorch has threshold 5 too, and adds eps to the root of v before its correction.
    """
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    m_hat = m / (1 - b1**step)
    v_hat = v / (1 - b2**step)
    rho_inf = 2 / (1 - b2) - 1
    rho = rho_inf - 2 * step * b2**step / (1 - b2**step)
    r = sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    return where(rho >= threshold, r * m_hat / (sqrt(v_hat) + eps), m_hat), m, v
