def adamod(w, g, m, v, s, *, b1=0.9, b2=0.999, b3=0.999, eps=1e-8, wd=0.0):
    """Adam whose element-wise rates are bounded by the average of their past.

    rate = sqrt(1 - b2^step) / (1 - b1^step) / (sqrt(v) + eps), with m and v as in adam
    s = (1 - b3) * rate + b3 * s;  update = min(rate, s) * m + wd * w

    Ding et al. 2019 (arXiv 1910.12249), whose rates have the learning rate inside: at a constant
    one that is the same.
    """
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    rate = sqrt(1 - b2**step) / (1 - b1**step) / (sqrt(v) + eps)
    s = interp(rate, s, b3)
    return min(rate, s) * m + wd * w, m, v, s
