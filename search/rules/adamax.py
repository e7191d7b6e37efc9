def adamax(w, g, m, u, *, b1=0.9, b2=0.999, eps=1e-8):
    """Adam with the infinity norm.

    m = (1 - b1) * g + b1 * m;  u = max(|g| + eps, b2 * u);  update = m / (1 - b1^step) / u

    Kingma and Ba 2015 (arXiv 1412.6980), section 7.1, whose learning rate is 0.002. Equals
    `optax.adamax(learning_rate)` (eps inside the maximum).
    """
    m = interp(g, m, b1)
    u = max(abs(g) + eps, b2 * u)
    return m / (1 - b1**step) / u, m, u
