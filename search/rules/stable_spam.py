def stable_spam(
    w, g, m, v, top, size, size2, age,
    *, b1=0.9, b2=0.999, g1=0.7, g2=0.9, g3=0.999, eps=1e-8, interval=1000.0, wd=0.0
):
    """Adam on gradients with bounded entries and an averaged norm, which resets its moments.

    top = average with g3 of max|g|, corrected: T;  x = g * T / max|g| where |g| > T, else g
    size, size2 = averages with g1, g2 of |x| and |x|^2, corrected
    y = x / |x| * size / (sqrt(size2) + eps)
    age counts from 1; at every interval-th step it is 1 again, and m = v = 0
    m, v, update as in adamw, of y, with age in place of step in their corrections

    Huang et al. 2025 (arXiv 2502.17055), without the decay of b1 (total_T, off in the released code
    too). That code restarts the corrections of top, size and size2 as well, though their averages
    go on; here, as in the paper and pytorch_optimizer, they count all steps.
    """
    largest = amax(abs(g))
    top = interp(largest, top, g3)
    limit = top / (1 - g3**step)
    x = where(abs(g) > limit, g * (limit / largest), g)
    length = norm(x)
    size = interp(length, size, g1)
    size2 = interp(square(length), size2, g2)
    y = x / length * (size / (1 - g1**step) / (sqrt(size2 / (1 - g2**step)) + eps))
    reset = every(step, interval)
    age = where(reset, 1.0, age + 1)
    m = interp(y, where(reset, 0.0, m), b1)
    v = interp(square(y), where(reset, 0.0, v), b2)
    u = m / (1 - b1**age) / (sqrt(v / (1 - b2**age)) + eps)
    return u + wd * w, m, v, top, size, size2, age
