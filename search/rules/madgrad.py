def madgrad(w, g, s, nu, w0, *, rate=1e-2, b=0.9, eps=1e-6):
    """Dual averaging with the cube root of the sum of squares.

    weight = (rate + eps) * sqrt(step);  s = s + weight * g;  nu = nu + weight * g^2
    z = w0 - s / (cbrt(nu) + eps), with w0 the initial parameters
    update = w - ((1 - b) * z + b * w)

    Defazio and Jelassi 2021 (arXiv 2101.11075). With a learning rate of 1 it equals
    `optax.contrib.madgrad(rate)`: the learning rate is inside the sums, and so a constant here.
    """
    w0 = where(step < 2, w, w0)
    weight = (rate + eps) * sqrt(step)
    s = s + weight * g
    nu = nu + weight * square(g)
    z = w0 - s / (cbrt(nu) + eps)
    return w - interp(z, w, b), s, nu, w0
