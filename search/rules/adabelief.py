def adabelief(w, g, m, v, *, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16):
    """Adam that divides by how far gradients stray from their average.

    m = (1 - b1) * g + b1 * m;  v = (1 - b2) * (g - m)^2 + b2 * v + eps_root
    update = m / (1 - b1^step) / (sqrt(v / (1 - b2^step)) + eps)

    Zhuang et al. 2020 (arXiv 2010.07468). Equals `optax.adabelief(learning_rate)`: eps_root
    enters the slot at every step. The paper's one eps is 1e-8 (images), 1e-16 (language).
    """
    m = interp(g, m, b1)
    v = interp(square(g - m), v, b2) + eps_root
    m_hat = m / (1 - b1**step)
    v_hat = v / (1 - b2**step)
    return m_hat / (sqrt(v_hat) + eps), m, v
