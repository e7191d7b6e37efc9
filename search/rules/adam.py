def adam(w, g, m, v, *, b1=0.9, b2=0.999, eps=1e-8):
    """Averaged gradients over the root of averaged squares, both corrected for their start at zero.

    m = (1 - b1) * g + b1 * m;  v = (1 - b2) * g^2 + b2 * v
    update = m / (1 - b1^step) / (sqrt(v / (1 - b2^step)) + eps)

    Kingma and Ba 2015 (arXiv 1412.6980). Equals `optax.adam(learning_rate)` (eps outside the root).
    """
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    m_hat = m / (1 - b1**step)
    v_hat = v / (1 - b2**step)
    return m_hat / (sqrt(v_hat) + eps), m, v
