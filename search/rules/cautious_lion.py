def cautious_lion(w, g, m, *, b1=0.9, b2=0.99, wd=1e-3, floor=1e-3):
    """Lion that leaves out what points against the gradient.

    u = sign((1 - b1) * g + b1 * m);  mask = 1 where u * g > 0, else 0
    update = u * mask / max(mean(mask), floor) + wd * w;  m = (1 - b2) * g + b2 * m

    Liang et al. 2024 (arXiv 2411.16085), with the released code's floor; constants are Lion's.
    """
    u = sign(interp(g, m, b1))
    mask = u * g > 0
    return u * (mask / max(mean(mask), floor)) + wd * w, interp(g, m, b2)
