def nadam(w, g, m, v, *, b1=0.9, b2=0.999, eps=1e-8):
    """Adam with Nesterov momentum.

    m = (1 - b1) * g + b1 * m;  v = (1 - b2) * g^2 + b2 * v
    m_hat = b1 * m / (1 - b1^(step + 1)) + (1 - b1) * g / (1 - b1^step)
    update = m_hat / (sqrt(v / (1 - b2^step)) + eps)

    Dozat 2016. Equals `optax.nadam(learning_rate)`: constant b1, and no extra factor b2 in front of
    v (the paper has one in algorithm 2). PyTorch instead varies b1 with the step.
    """
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    m_hat = interp(g / (1 - b1**step), m / (1 - b1 ** (step + 1)), b1)
    v_hat = v / (1 - b2**step)
    return m_hat / (sqrt(v_hat) + eps), m, v
