def adamaxw(w, g, m, u, *, b1=0.9, b2=0.999, eps=1e-8, wd=1e-4):
    """AdaMax with decoupled weight decay.

    m = (1 - b1) * g + b1 * m;  u = max(|g| + eps, b2 * u);  update = m / (1 - b1^step) / u + wd * w

    Loshchilov and Hutter 2019 (arXiv 1711.05101) on AdaMax. Equals `optax.adamaxw(learning_rate)`.
    """
    m = interp(g, m, b1)
    u = max(abs(g) + eps, b2 * u)
    return m / (1 - b1**step) / u + wd * w, m, u
