def innaprop(w, g, v, psi, *, rate=1e-3, alpha=0.1, beta=0.9, sigma=0.999, eps=1e-8, wd=0.01):
    """An inertial Newton method in first-order form, with RMSProp's scaling.

    v = (1 - sigma) * g^2 + sigma * v;  x = (1 - rate * wd) * w
    psi = (1 - rate / beta) * psi + rate * (1 / beta - alpha) * x, from (1 - alpha * beta) * w on
    w = (1 + rate * (1 - alpha * beta) / (beta - rate)) * x - rate / (beta - rate) * psi
        - rate * beta * g / (sqrt(v / (1 - sigma^step)) + eps)

    Bolte et al. 2024 (arXiv 2410.05871). With a learning rate of 1: the learning rate is inside the
    recursion, and so a constant here.
    """
    v = interp(square(g), v, sigma)
    x = w - rate * wd * w
    psi = where(step < 2, (1 - alpha * beta) * w, psi)
    psi = psi - rate / beta * psi + rate * (1 / beta - alpha) * x
    pull = rate / (beta - rate) * ((1 - alpha * beta) * x - psi)
    move = rate * beta * (g / (sqrt(v / (1 - sigma**step)) + eps))
    return w - x - pull + move, v, psi
