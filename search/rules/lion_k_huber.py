def lion_k_huber(w, g, m, *, b1=0.9, b2=0.99, delta=1e-3, wd=1e-3):
    """Lion with a sign that is linear near zero: the gradient of Huber's loss.

    c = (1 - b1) * g + b1 * m;  m = (1 - b2) * g + b2 * m
    update = clip(c, -delta, delta) / delta + wd * w

    Chen et al. 2023 (arXiv 2310.05898): Lion-K for K the sum of huber(x) / delta. Constants are
    lion's, and delta is ours: small against it a gradient counts by its size, else by its sign.
    """
    c = interp(g, m, b1)
    m = interp(g, m, b2)
    return max(min(c, delta), -delta) / delta + wd * w, m
