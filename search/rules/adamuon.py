def adamuon(w, g, m, v, *, b=0.95, b1=0.9, b2=0.999, eps=1e-8, wd=0.01):
    """Muon with Adam's second moment of the orthogonal update, at the size of Adam's.

    matrices: m = g + b * m;  o = orthogonalize(sign(m));  v = (1 - b) * o^2 + b * v
              u = o / (sqrt(v) + eps);  update = 0.2 * sqrt(fan_in * fan_out) * u / |u| + wd * w
    others: adamw with b1, b2

    Si et al. 2025 (arXiv 2507.11005, version 3). Matrices have two axes or more. The first version
    and its released code leave the sign out, look ahead as Nesterov does and have a b2 of 0.999 for
    v; pytorch_optimizer leaves the sign out too.
    """
    is_matrix = ndim > 1
    m = where(is_matrix, g + b * m, interp(g, m, b1))
    o = orthogonalize(sign(m))
    v = interp(square(where(is_matrix, o, g)), v, where(is_matrix, b, b2))
    u = o / (sqrt(v) + eps)
    shaped = 0.2 * sqrt(fan_in * fan_out) / norm(u) * u
    plain = m / (1 - b1**step) / (sqrt(v / (1 - b2**step)) + eps)
    return where(is_matrix, shaped, plain) + wd * w, m, v
