def signum(w, g, m, *, beta=0.9):
    """The sign of averaged gradients.

    m = (1 - beta) * g + beta * m;  update = sign(m)

    Bernstein et al. 2018 (arXiv 1802.04434). Equals `optax.signum(learning_rate)`. Also published:
    with weight decay it is Tiger (beta 0.945 or 0.965).
    """
    m = interp(g, m, beta)
    return sign(m), m
