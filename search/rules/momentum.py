def momentum(w, g, m, *, decay=0.9):
    """SGD with heavy-ball momentum.

    m = g + decay * m;  update = m

    Polyak 1964. Equals `optax.sgd(learning_rate, momentum=0.9)`; the gradient enters with weight 1,
    so that the steady step is 1 / (1 - decay) times that of sgd. Also used: decay 0.99.
    """
    m = g + decay * m
    return m, m
