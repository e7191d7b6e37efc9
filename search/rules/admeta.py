def admeta(w, g, i, m, v, *, b1=0.9, b2=0.999, lam=0.2, eps=1e-8, wd=0.0):
    """Adam on gradients from which a decaying sum of them is taken: a twofold average.

    i = g + lam * i;  h = (10 / lam - 9) * g + (25 - 10 * lam - 10 / lam) * i
    m = (1 - b1) * h + b1 * m;  v = (1 - b2) * h^2 + b2 * v
    update = sqrt(1 - b2^step) / (1 - b1^step) * m / (sqrt(v) + eps) + wd * w

    Chen et al. 2023 (arXiv 2307.00631), AdmetaR's backward-looking part with the released code's
    constants and without rectification (rectify=False there); its lookahead needs the trainer. The
    released code adds the weight of i as a number, and not times i, and 10 * lam^step times the
    first gradient.
    """
    i = g + lam * i
    h = (10 / lam - 9) * g + (25 - 10 * lam - 10 / lam) * i
    m = interp(h, m, b1)
    v = interp(square(h), v, b2)
    rate = sqrt(1 - b2**step) / (1 - b1**step)
    return rate * (m / (sqrt(v) + eps)) + wd * w, i, m, v
