def adadelta(w, g, v, d, *, rho=0.9, eps=1e-6):
    """The gradient scaled by averaged squares of updates over those of gradients.

    v = (1 - rho) * g^2 + rho * v;  update = g * sqrt(d + eps) / sqrt(v + eps);
    d = (1 - rho) * update^2 + rho * d

    Zeiler 2012 (arXiv 1212.5701), whose learning rate is 1 and whose rho is 0.95. Equals
    `optax.adadelta(learning_rate)`.
    """
    v = interp(square(g), v, rho)
    update = sqrt(d + eps) / sqrt(v + eps) * g
    d = interp(square(update), d, rho)
    return update, v, d
