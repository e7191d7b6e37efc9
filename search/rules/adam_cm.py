def adam_cm(w, g, m, v, kept, priority, *, b1=0.9, b2=0.999, eps=1e-8, decay=0.7, wd=0.0):
    """Adam that adds a momentum from a step at which the gradient was large.

    m = (1 - b1) * g + b1 * m;  u = m + kept;  v = (1 - b2) * u^2 + b2 * v
    kept = m where the sum of the tensors' gradient norms exceeds priority, which becomes that sum
    priority = decay * priority
    update = u / (1 - b1^step) / (sqrt(v / (1 - b2^step)) + eps) + wd * w
    first step: kept = g, and m, u and v stay zero

    Malviya et al. 2023 (arXiv 2307.09638), Adam with critical momenta, with a buffer of one (the
    paper has 5) and the released code's first step.
    """
    first = step < 2
    size = global_dot(g, g / norm(g))
    m = where(first, 0.0, interp(g, m, b1))
    u = where(first, 0.0, m + kept)
    v = interp(square(u), v, b2)
    keep = where(first, 1.0, size > priority)
    kept = where(first, g, where(keep, m, kept))
    priority = decay * where(keep, size, priority)
    update = u / (1 - b1**step) / (sqrt(v / (1 - b2**step)) + eps)
    return update + wd * w, m, v, kept, priority
