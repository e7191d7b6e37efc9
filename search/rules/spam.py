def spam(
    w, g, m, v, age,
    *, b1=0.9, b2=0.999, eps=1e-6, threshold=5000.0, interval=500.0, warmup=50.0, wait=20.0, wd=0.0
):
    """Adam that clips spikes of the gradient and forgets its moments from time to time.

    age = 0 at every interval-th step, where m and v are set to 0 first; it counts on from there,
    and starts beyond the warm-up
    x = sign(g) * sqrt(threshold * v) where g^2 > threshold * v, and step and age are at least wait;
    else g;  m, v as in adam, of x
    slow = 1 - 0.99 * (1 + cos(pi * age / (warmup + 1))) / 2 where age < warmup, else 1
    update = slow * sqrt(1 - b2^step) / (1 - b1^step) * m / (sqrt(v) + eps) + wd * w

    Huang et al. 2025 (arXiv 2501.06842), with momentum for all parameters (density 1) and the
    released code's constants; the corrections go on counting through the resets.
    """
    reset = every(step, interval)
    age = where(reset, 0.0, where(step < 2, warmup + 1, age + 1))
    m = where(reset, 0.0, m)
    v = where(reset, 0.0, v)
    watch = (step >= wait) * (age >= wait)
    x = where(watch * (square(g) > threshold * v), sign(g) * sqrt(threshold * v), g)
    m = interp(x, m, b1)
    v = interp(square(x), v, b2)
    rise = 1 - 0.495 * (1 + cos(3.141592653589793 * age / (warmup + 1)))
    rate = where(age < warmup, rise, 1.0) * (sqrt(1 - b2**step) / (1 - b1**step))
    return rate * (m / (sqrt(v) + eps)) + wd * w, m, v, age
