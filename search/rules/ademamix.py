def ademamix(w, g, m, m_slow, v, *, b1=0.9, b2=0.999, b3=0.9999, alpha=5.0, eps=1e-8, wd=0.0):
    """AdamW with a second, much slower average of gradients.

    m = (1 - b1) * g + b1 * m;  m_slow = (1 - b3) * g + b3 * m_slow;  v = (1 - b2) * g^2 + b2 * v
    update = (m / (1 - b1^step) + alpha * m_slow) / (sqrt(v / (1 - b2^step)) + eps) + wd * w

    Pagliardini et al. 2024 (arXiv 2409.03137). Equals `optax.contrib.ademamix(learning_rate)`, with
    b3 and alpha constant; the paper warms both up, and takes alpha from 4 to 10 and wd 0.1.
    pytorch_optimizer divides m_slow by 1 - b1^step too, and adds its decay to the gradient.
    """
    m = interp(g, m, b1)
    m_slow = interp(g, m_slow, b3)
    v = interp(square(g), v, b2)
    m_hat = m / (1 - b1**step)
    v_hat = v / (1 - b2**step)
    return (m_hat + alpha * m_slow) / (sqrt(v_hat) + eps) + wd * w, m, m_slow, v
