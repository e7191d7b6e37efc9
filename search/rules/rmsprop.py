def rmsprop(w, g, v, *, decay=0.9, eps=1e-8):
    """The gradient over the root of its averaged square.

    v = (1 - decay) * g^2 + decay * v;  update = g / sqrt(v + eps)

    Tieleman and Hinton 2012 (lecture 6.5). Equals `optax.rmsprop(learning_rate)`: not centred, eps
    inside the root, v starts at 0. PyTorch has decay 0.99 and eps outside the root.
    """
    v = interp(square(g), v, decay)
    return g / sqrt(v + eps), v
