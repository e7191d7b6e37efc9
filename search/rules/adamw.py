def adamw(w, g, m, v, *, b1=0.9, b2=0.999, eps=1e-8, wd=1e-4):
    """Adam with decoupled weight decay.

    m = (1 - b1) * g + b1 * m;  v = (1 - b2) * g^2 + b2 * v
    update = m / (1 - b1^step) / (sqrt(v / (1 - b2^step)) + eps) + wd * w

    Loshchilov and Hutter 2019 (arXiv 1711.05101). Equals `optax.adamw(learning_rate)`; the decay is
    multiplied by the learning rate. PyTorch has wd 0.01; for language models often b2 0.95, wd 0.1.
    """
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    m_hat = m / (1 - b1**step)
    v_hat = v / (1 - b2**step)
    return m_hat / (sqrt(v_hat) + eps) + wd * w, m, v
