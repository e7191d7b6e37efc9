def muon_linear(w, g, m, v, *, b=0.95, b1=0.9, b2=0.999, eps=1e-8, wd=0.0):
    """Muon whose update falls linearly to zero over the run: a schedule inside a rule.

    update = (1 - progress) * muon's, with m and v as in muon

    Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/), with the linear decay of many
    speed runs. Equals `optax.contrib.muon(schedule)` with the learning rate
    `rate * (1 - (count + 1) / num_steps)`, where Optax's count starts at 0.
    """
    is_matrix = ndim == 2
    beta = where(is_matrix, b, b1)
    m = interp(g, m, beta)
    v = interp(square(g), v, b2)
    look = beta * (m / (1 - beta ** (step + 1))) + (1 - beta) * (g / (1 - beta**step))
    v_hat = v / (1 - b2**step)
    shaped = sqrt(max(1.0, fan_out / fan_in)) * orthogonalize(look) + wd * w
    return (1 - progress) * where(is_matrix, shaped, look / (sqrt(v_hat) + eps)), m, v
