def dog(w, g, w0, radius, total, *, reps=1e-6, eps=1e-8):
    """SGD whose rate is the distance travelled over the root of all squared gradients.

    radius = the largest |w - w0| so far, at first reps * (1 + |w0|); total = sum of |g|^2
    update = g * radius / sqrt(total + eps), all norms over all tensors, w0 the initial parameters

    Ivgi et al. 2023 (arXiv 2302.12022). With a learning rate of 1 it equals `optax.contrib.dog()`.
    """
    w0 = where(step < 2, w, w0)
    radius = where(step < 2, reps * (1 + global_norm(w)), max(radius, global_norm(w - w0)))
    total = total + square(global_norm(g))
    return g * (radius / sqrt(total + eps)), w0, radius, total
