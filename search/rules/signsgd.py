def signsgd(w, g):
    """The sign of the gradient.

    update = sign(g)

    Bernstein et al. 2018 (arXiv 1802.04434). Equals `optax.sign_sgd(learning_rate)`.
    """
    return sign(g)
