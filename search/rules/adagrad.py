def adagrad(w, g, s, *, initial_accumulator_value=0.1, eps=1e-7):
    """The gradient over the root of the sum of all its squares.

    s = s + g^2;  update = g / sqrt(initial + s + eps)

    Duchi et al. 2011. Equals `optax.adagrad(learning_rate)`, whose accumulator starts at 0.1; slots
    start at zero, so the initial value is added where the sum is read. PyTorch has initial value 0.
    """
    s = s + square(g)
    return g / sqrt(s + (initial_accumulator_value + eps)), s
