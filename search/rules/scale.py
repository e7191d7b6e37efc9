def scale(w, g, m, *, b=0.9):
    """The gradient with columns of norm 1, and momentum for the last layer only.

    direction = m = (1 - b) * g + b * m for the last layer's kernel, g for all others
    update = direction / column_norm(direction), and direction / norm(direction) for vectors

    Glentis et al. 2025 (arXiv 2506.16659), who train vectors with Adam. A column holds what goes
    into one output. m is kept, and stays zero, for all layers.
    """
    m = is_last * interp(g, m, b)
    direction = where(is_last, m, g)
    return direction / where(ndim > 1, column_norm(direction), norm(direction)), m
