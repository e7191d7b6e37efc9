def apollo(
    w, g, m, v, last,
    *, b1=0.9, b2=0.999, eps=1e-6, interval=200.0, scale=1.0, growth=1.01, wd=0.0
):
    """The gradient with each channel at the size that Adam has in a random projection.

    x = P g, of a quarter of the shorter side's rank;  m, v as in adam, of x
    u = m / (sqrt(v) + eps);  y = g * |u_j| / |x_j|, j over the longer side
    y = y / max(|y| / (growth * |y of the last step|), 1)
    update = sqrt(scale) * sqrt(1 - b2^step) / (1 - b1^step) * y + wd * w;  vectors: adamw

    Zhu et al. 2024 (arXiv 2412.05270), with the released code's constants. P is a random cosine
    basis with orthonormal rows, which changes after every interval steps; the paper's has entries
    of variance 1 / rank, so that scale 1 here is scale 4 (short side over rank) there.
    pytorch_optimizer scales the projected gradient instead, and projects back.
    """
    is_matrix = min(fan_in, fan_out) > 1
    seed = where(is_matrix, (step - 1) / interval, 0.0)
    x = sketch(g, seed)
    m = interp(x, m, b1)
    v = interp(square(x), v, b2)
    u = m / (sqrt(v) + eps)
    y = g * (sketch_norm(u) / (sketch_norm(x) + 1e-8))
    size = norm(y)
    limit = where(step < 2, 1.0, max(size / (last + 1e-8), growth) / growth)
    rate = sqrt(1 - b2**step) / (1 - b1**step)
    update = rate * where(is_matrix, sqrt(scale) / limit * y, unsketch(u, seed))
    return update + wd * w, m, v, size / limit
