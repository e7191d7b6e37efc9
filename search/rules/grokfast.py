def grokfast(w, g, h, m, v, *, alpha=0.98, lam=2.0, b1=0.9, b2=0.999, eps=1e-8, wd=1e-4):
    """AdamW on gradients with their slow part amplified.

    h = (1 - alpha) * g + alpha * h, from the first gradient on;  x = g + lam * h
    m, v, update as in adamw, of x

    Lee et al. 2024 (arXiv 2405.20233), the EMA filter with the released code's constants, before
    AdamW; its constants are adamw's.
    """
    h = where(step < 2, g, interp(g, h, alpha))
    x = g + lam * h
    m = interp(x, m, b1)
    v = interp(square(x), v, b2)
    return m / (1 - b1**step) / (sqrt(v / (1 - b2**step)) + eps) + wd * w, h, m, v
