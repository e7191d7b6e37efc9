def muon(w, g, m, v, *, b=0.95, b1=0.9, b2=0.999, eps=1e-8, wd=0.0):
    """Momentum made orthogonal for matrices, and Nadam for all other tensors.

    matrices: m = (1 - b) * g + b * m;  look = b * m / (1 - b^(step+1)) + (1 - b) * g / (1 - b^step)
              update = sqrt(max(1, fan_out / fan_in)) * orthogonalize(look) + wd * w
    others: m, v as in adam with b1, b2, and m_hat looks one step ahead as in nadam

    Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/). Equals
    `optax.contrib.muon(learning_rate)`, which takes tensors of two axes for matrices. v is kept,
    and not read, for these. PyTorch has wd 0.1, no corrections of the start, and matrices only.
    """
    is_matrix = ndim == 2
    beta = where(is_matrix, b, b1)
    m = interp(g, m, beta)
    v = interp(square(g), v, b2)
    look = beta * (m / (1 - beta ** (step + 1))) + (1 - beta) * (g / (1 - beta**step))
    v_hat = v / (1 - b2**step)
    shaped = sqrt(max(1.0, fan_out / fan_in)) * orthogonalize(look) + wd * w
    return where(is_matrix, shaped, look / (sqrt(v_hat) + eps)), m, v
