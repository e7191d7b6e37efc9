def adopt(w, g, m, v, *, b1=0.9, b2=0.9999, eps=1e-6):
    """Adam that divides each gradient by the average of those before it, and then averages.

    limit = (step - 1)^(1/4)
    m = (1 - b1) * clip(g / max(sqrt(v), eps), -limit, limit) + b1 * m;  update = m
    v = (1 - b2) * g^2 + b2 * v, and g^2 at the first step

    Taniguchi et al. 2024 (arXiv 2411.02853), the clipped form. Equals
    `optax.contrib.adopt(learning_rate)`: the first step only fills v, since its limit is 0.
    """
    limit = (step - 1) ** 0.25
    scaled = g / max(sqrt(v), eps)
    m = interp(max(min(scaled, limit), -limit), m, b1)
    v = where(step < 2, square(g), interp(square(g), v, b2))
    return m, m, v
