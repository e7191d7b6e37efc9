def sania(w, g, v, *, b2=0.999, eps=0.1, f_min=0.0):
    """A Polyak step in the metric of averaged squares, without their root: free of scale.

    v = (1 - b2) * g^2 + b2 * v;  u = g / max(v / (1 - b2^step), eps)
    x = 2 * (loss - f_min) / <g, u>, over all tensors
    update = u * (1 - sqrt(1 - x)), and u itself where x > 1

    Abdukhakimov et al. 2023 (arXiv 2312.17369), SANIA Adam-SQR, with the released code's eps; the
    learning rate is 1.
    """
    v = interp(square(g), v, b2)
    u = g / max(v / (1 - b2**step), eps)
    x = 2 * (loss - f_min) / global_dot(g, u)
    return u * where(x < 1, 1 - sqrt(max(1 - x, 0.0)), 1.0), v
