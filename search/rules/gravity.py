def gravity(w, g, v, *, b=0.9):
    """Momentum of gradients whose largest entries are held back.

    zeta = g / (1 + (g * max|g|)^2);  beta = (b * step + 1) / (step + 2)
    v = (1 - beta) * zeta + beta * v;  update = v

    Bahrami and Zadeh 2021 (arXiv 2101.09192), whose v starts as random numbers; here at zero.
    """
    zeta = g / (1 + square(g * amax(abs(g))))
    v = interp(zeta, v, (b * step + 1) / (step + 2))
    return v, v
