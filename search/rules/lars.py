def lars(w, g, m, *, trust_coefficient=1e-3, b=0.9, wd=0.0):
    """Momentum of gradients that are scaled, tensor by tensor, to the norm of the parameters.

    direction = g + wd * w
    m = direction * trust_coefficient * |w| / |direction| + b * m, and no scaling where a norm is 0
    update = m

    You et al. 2017 (arXiv 1708.03888). Equals `optax.lars(learning_rate)` at a constant learning
    rate: there, as in the paper, it is in the momentum, and a change reaches later steps only.
    pytorch_optimizer scales and decays no vectors, and divides by |g|, without the decay.
    """
    direction = g + wd * w
    ratio = norm(w) / norm(direction)
    m = direction * where(ratio > 0, trust_coefficient * ratio, 1.0) + b * m
    return m, m
