def sophia(
    w, g, m, h,
    *, b1=0.965, b2=0.99, eps=1e-8, gamma=0.01, clip_threshold=1.0, update_interval=10.0, wd=1e-4
):
    """Momentum over an estimate of the curvature, clipped element by element.

    m = (1 - b1) * g + b1 * m;  update = clip(m_hat / max(gamma * h, eps)) + wd * w
    h = (1 - b2) * g^2 + b2 * h after steps 1, 11, 21, ...

    Liu et al. 2023 (arXiv 2305.14342), with squared gradients as the estimate of the Hessian's
    diagonal: a better one needs a second backward pass, which no program has. Equals
    `optax.contrib.sophia` with a `hessian_diagonal_fn` that squares the gradients.
    """
    m = interp(g, m, b1)
    u = m / (1 - b1**step) / max(gamma * h, eps)
    u = max(min(u, clip_threshold), -clip_threshold)
    h = where(every(step - 1, update_interval), interp(square(g), h, b2), h)
    return u + wd * w, m, h
