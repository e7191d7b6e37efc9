def galore(w, g, m, v, *, b1=0.9, b2=0.999, eps=1e-6, interval=200.0, scale=0.25, wd=0.0):
    """Adam on a low-rank projection of each matrix's gradient, projected back.

    x = P g, of a quarter of the shorter side's rank;  m, v as in adam, of x
    update = scale * P^T (sqrt(1 - b2^step) / (1 - b1^step) * m / (sqrt(v) + eps)) + wd * w
    P changes after every interval steps, m and v stay;  vectors: P = 1, scale = 1

    Zhao et al. 2024 (arXiv 2403.03507), with the released code's constants and place of eps. P is a
    random cosine basis (`sketch`); the paper has the first singular vectors of the gradient, as has
    `optax.contrib.galore`.
    """
    is_matrix = min(fan_in, fan_out) > 1
    seed = where(is_matrix, (step - 1) / interval, 0.0)
    x = sketch(g, seed)
    m = interp(x, m, b1)
    v = interp(square(x), v, b2)
    rate = where(is_matrix, scale, 1.0) * sqrt(1 - b2**step) / (1 - b1**step)
    return rate * unsketch(m / (sqrt(v) + eps), seed) + wd * w, m, v
