def adabound(w, g, m, v, *, b1=0.9, b2=0.999, eps=1e-8, final=100.0, gamma=1e-3):
    """Adam whose element-wise rates are clipped to bounds that close on SGD's.

    rate = sqrt(1 - b2^step) / (1 - b1^step) / (sqrt(v) + eps), with m and v as in adam
    lower = final * (1 - 1 / (gamma * step + 1));  upper = final * (1 + 1 / (gamma * step))
    update = min(max(rate, lower), upper) * m

    Luo et al. 2019 (arXiv 1902.09843). `final` is the final rate in units of the learning rate: the
    released code has 0.1 for 0.001.
    """
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    rate = sqrt(1 - b2**step) / (1 - b1**step) / (sqrt(v) + eps)
    lower = final * (1 - 1 / (gamma * step + 1))
    upper = final * (1 + 1 / (gamma * step))
    return min(max(rate, lower), upper) * m, m, v
