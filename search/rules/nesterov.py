def nesterov(w, g, m, *, decay=0.9):
    """SGD with Nesterov momentum.

    m = g + decay * m;  update = g + decay * m

    Nesterov 1983, in the form of Sutskever et al. 2013. Equals
    `optax.sgd(learning_rate, momentum=0.9, nesterov=True)`. Also used: decay 0.99.
    """
    m = g + decay * m
    return g + decay * m, m
