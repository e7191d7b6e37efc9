def sgd_sai(w, g, m, snr, *, b=0.9, eps=1e-8, wd=1e-2):
    """Momentum with a rate for each tensor, set once from the first gradient.

    snr = |g| / (std(g) + eps) of the first gradient (n - 1 in the variance), then constant
    m = (1 - b) * g + b * m, from the first gradient on;  update = snr * m + wd * w

    Xu et al. 2024 (arXiv 2412.11768), SGD-SaI with the released code's constants. Its package
    divides snr by the largest of all tensors since version 1.0.4, which the paper does not. A
    tensor of one number has no deviation: its snr is 1 here.
    """
    count = fan_in * fan_out
    deviation = sqrt(mean(square(g - mean(g))) * (count / (count - 1)))
    snr = where(step < 2, where(count > 1, norm(g) / (deviation + eps), 1.0), snr)
    m = where(step < 2, g, interp(g, m, b))
    return snr * m + wd * w, m, snr
