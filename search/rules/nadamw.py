def nadamw(w, g, m, v, *, b1=0.9, b2=0.999, eps=1e-8, wd=1e-4):
    """Adam with Nesterov momentum and decoupled weight decay.

    m, v, m_hat as in nadam;  update = m_hat / (sqrt(v / (1 - b2^step)) + eps) + wd * w

    Dozat 2016 with Loshchilov and Hutter 2019 (arXiv 1711.05101). Equals
    `optax.nadamw(learning_rate)`.
    """
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    m_hat = interp(g / (1 - b1**step), m / (1 - b1 ** (step + 1)), b1)
    v_hat = v / (1 - b2**step)
    return m_hat / (sqrt(v_hat) + eps) + wd * w, m, v
