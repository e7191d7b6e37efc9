def lion(w, g, m, *, b1=0.9, b2=0.99, wd=1e-3):
    """The sign of a gradient averaged twice, found by symbolic search.

    c = (1 - b1) * g + b1 * m;  m = (1 - b2) * g + b2 * m;  update = sign(c) + wd * w

    Chen et al. 2023 (arXiv 2302.06675). Equals `optax.lion(learning_rate)`. The paper advises a
    learning rate 3 to 10 times smaller and wd 3 to 10 times larger than adamw's; for language
    models b1 0.95, b2 0.98. pytorch_optimizer has wd 0.
    """
    c = interp(g, m, b1)
    m = interp(g, m, b2)
    return sign(c) + wd * w, m
