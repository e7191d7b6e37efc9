def momo(w, g, m, mean_loss, mean_slope, *, rate=1.0, b=0.9, lower_bound=0.0, wd=0.0):
    """Momentum whose rate is a Polyak step on an averaged model of the loss.

    m, mean_loss, mean_slope = averages with b of g, of the loss and of <g, w>, from the first on
    tau = min(rate, max((1 + rate * wd) (mean_loss - lower_bound - mean_slope) + <m, w>, 0) / |m|^2)
    w = w / (1 + rate * wd) - tau * m

    Schaipp et al. 2023 (arXiv 2305.07583). With a learning rate of 1 it equals
    `optax.contrib.momo(rate)`: the learning rate is inside a minimum, and so a constant here. All
    products are over all tensors.
    """
    beta = where(step < 2, 0.0, b)
    m = interp(g, m, beta)
    mean_loss = interp(loss, mean_loss, beta)
    mean_slope = interp(global_dot(g, w), mean_slope, beta)
    size = square(global_norm(m))
    gap = (1 + rate * wd) * (mean_loss - lower_bound - mean_slope) + global_dot(m, w)
    tau = min(rate, where(size <= 2.220446049250313e-16, 0.0, max(gap, 0.0) / size))
    return rate * wd / (1 + rate * wd) * w + tau * m, m, mean_loss, mean_slope
