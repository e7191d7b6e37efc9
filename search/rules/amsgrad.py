def amsgrad(w, g, m, v, v_max, *, b1=0.9, b2=0.999, eps=1e-8):
    """Adam whose denominator never shrinks.

    m, v as in adam;  v_max = max(v_max, v / (1 - b2^step))
    update = m / (1 - b1^step) / (sqrt(v_max) + eps)

    Reddi et al. 2018 (arXiv 1904.09237). Equals `optax.amsgrad(learning_rate)`: the maximum is over
    corrected averages (the paper corrects nothing). PyTorch's amsgrad=True takes it over averages
    before their correction.
    """
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    m_hat = m / (1 - b1**step)
    v_max = max(v_max, v / (1 - b2**step))
    return m_hat / (sqrt(v_max) + eps), m, v, v_max
