def momo_adam(
    w, g, m, v, mean_loss, mean_slope,
    *, rate=1e-2, b1=0.9, b2=0.999, eps=1e-8, lower_bound=0.0, wd=0.0
):
    """Adam whose rate is a Polyak step on an averaged model of the loss.

    m, v as in adam;  mean_loss, mean_slope = averages with b1 of the loss and of <g, w>
    d = sqrt(v / (1 - b2^step)) + eps;  gap = (1 + rate * wd) (mean_loss - (1 - b1^step)
    lower_bound - mean_slope) + <m, w>;  tau = min(rate / (1 - b1^step), max(gap, 0) / <m, m / d>)
    w = w / (1 + rate * wd) - tau * m / d

    Schaipp et al. 2023 (arXiv 2305.07583). With a learning rate of 1 it equals
    `optax.contrib.momo_adam(rate)`; the learning rate is inside a minimum, and so a constant here.
    All products are over all tensors.
    """
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    mean_loss = interp(loss, mean_loss, b1)
    mean_slope = interp(global_dot(g, w), mean_slope, b1)
    c1 = 1 - b1**step
    u = m / (sqrt(v / (1 - b2**step)) + eps)
    size = global_dot(m, u)
    gap = (1 + rate * wd) * (mean_loss - c1 * lower_bound - mean_slope) + global_dot(m, w)
    tau = min(rate / c1, where(size <= 2.220446049250313e-16, 0.0, max(gap, 0.0) / size))
    return rate * wd / (1 + rate * wd) * w + tau * u, m, v, mean_loss, mean_slope
