def adan_paper(
    w, g, m, d, n, g_prev, *, rate=1e-3, b1=0.02, b2=0.08, b3=0.01, eps=1e-8, wd=0.02
):
    """Adam with Nesterov momentum by differences of gradients, as its paper has it.

    diff = g - g_prev (0 at the first step)
    m = (1 - b1) * m + b1 * g;  d = (1 - b2) * d + b2 * diff
    n = (1 - b3) * n + b3 * (g + (1 - b2) * diff)^2
    w = (w - rate * (m + (1 - b2) * d) / (sqrt(n) + eps)) / (1 + rate * wd)
    first step: m = g, d = 0, n = g^2, in place of corrections of the start

    Xie et al. 2022 (arXiv 2208.06677), algorithm 1 without restarts. With a learning rate of 1: the
    decay divides by it, so it is a constant here. The released code corrects averages that start at
    zero, counts its betas the other way round (0.98, 0.92, 0.99) and has wd 0; so does adan.
    """
    first = step < 2
    diff = where(first, 0.0, g - g_prev)
    m = where(first, g, interp(m, g, b1))
    d = interp(d, diff, b2)
    n = where(first, square(g), interp(n, square(g + (1 - b2) * diff), b3))
    moved = w - rate * ((m + (1 - b2) * d) / (sqrt(n) + eps))
    return w - moved / (1 + rate * wd), m, d, n, g
