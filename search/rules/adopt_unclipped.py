def adopt_unclipped(w, g, m, v, *, b1=0.9, b2=0.9999, eps=1e-6):
    """Adam that divides each gradient by the average of those before it, and then averages.

    u = g / max(sqrt(v), eps), v of the steps before;  m = (1 - b1) * u + b1 * m;  update = m
    v = (1 - b2) * g^2 + b2 * v
    first step: v = g^2 and no update;  second step: m = u

    Taniguchi et al. 2024 (arXiv 2411.02853, version 1), before the clipping of its later versions,
    which is adopt. An element whose first gradient is 0 moves by up to g / eps.
    """
    u = g / max(sqrt(v), eps)
    m = where(step < 2, 0.0, where(step < 3, u, interp(u, m, b1)))
    v = where(step < 2, square(g), interp(square(g), v, b2))
    return m, m, v
