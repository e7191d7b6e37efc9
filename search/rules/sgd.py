def sgd(w, g):
    """Stochastic gradient descent.

    update = g

    Robbins and Monro 1951. Equals `optax.sgd(learning_rate)`.
    """
    return g
