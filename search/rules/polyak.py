def polyak(w, g, *, max_rate=1.0, f_min=0.0, eps=0.0):
    """SGD whose rate is the gap to the least loss over the squared norm of the gradient.

    update = g * min((loss - f_min) / (|g|^2 + eps), max_rate), the norm over all tensors, and 0
    where |g|^2 + eps is at most 2.2e-16

    Loizou et al. 2021 (arXiv 2002.10542), with the bound of Berrada et al. 2020 (arXiv 1906.05661).
    With a learning rate of 1 it equals `optax.polyak_sgd()`; the paper's c is 1.
    """
    size = square(global_norm(g)) + eps
    rate = min((loss - f_min) / size, max_rate)
    return g * where(size <= 2.220446049250313e-16, 0.0, rate)
