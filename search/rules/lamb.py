def lamb(w, g, m, v, *, b1=0.9, b2=0.999, eps=1e-6, wd=0.0):
    """AdamW whose update is scaled, tensor by tensor, to the norm of the parameters.

    direction = m_hat / (sqrt(v_hat) + eps) + wd * w, with m_hat and v_hat as in adam
    update = direction * |w| / |direction|, and the direction itself where a norm is 0

    You et al. 2020 (arXiv 1904.00962). Equals `optax.lamb(learning_rate)`. The paper has wd 0.01.
    pytorch_optimizer corrects no average, takes |w| at most as 10, and decays outside the ratio.
    """
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    m_hat = m / (1 - b1**step)
    v_hat = v / (1 - b2**step)
    direction = m_hat / (sqrt(v_hat) + eps) + wd * w
    ratio = norm(w) / norm(direction)
    return direction * where(ratio > 0, ratio, 1.0), m, v
