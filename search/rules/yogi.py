def yogi(w, g, m, v, *, b1=0.9, b2=0.999, eps=1e-3, initial_accumulator_value=1e-6):
    """Adam whose denominator moves by a step that does not depend on its size.

    m = (1 - b1) * g + b1 * m;  v = v - (1 - b2) * sign(v - g^2) * g^2
    update = m / (1 - b1^step) / (sqrt(v / (1 - b2^step)) + eps)

    Zaheer et al. 2018, whose b1 and b2 are those of adam and whose learning rate is 0.01. Equals
    `optax.yogi(learning_rate)`, where both slots start at 1e-6: slots are zero before the first
    step, so the initial value takes their place in it.
    """
    first = step < 2
    m = interp(g, where(first, initial_accumulator_value, m), b1)
    v = where(first, initial_accumulator_value, v)
    v = v - (1 - b2) * sign(v - square(g)) * square(g)
    m_hat = m / (1 - b1**step)
    v_hat = v / (1 - b2**step)
    return m_hat / (sqrt(v_hat) + eps), m, v
