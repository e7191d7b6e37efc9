def frugal(w, g, m, v, age, *, b1=0.9, b2=0.999, eps=1e-8, interval=200.0, scale=1.0, wd=0.01):
    """Adam in a random quarter of a matrix's directions, and the gradient's sign in the others.

    x = P g;  rest = g - P^T x;  m, v as in adam, of x
    update = P^T (m_hat / (sqrt(v_hat) + eps)) + scale * sign(rest) + wd * w;  vectors: adamw
    P changes after every interval steps, when m, v and the count in their corrections start anew

    Zmushko et al. 2024 (arXiv 2411.07837), with the released code's constants. P is a random cosine
    basis; they take blocks of layers, columns or singular vectors.
    """
    is_matrix = min(fan_in, fan_out) > 1
    seed = where(is_matrix, (step - 1) / interval, 0.0)
    anew = is_matrix * every(step - 1, interval)
    age = where(anew, 1.0, mean(age) + 1)
    x = sketch(g, seed)
    m = interp(x, where(anew, 0.0, m), b1)
    v = interp(square(x), where(anew, 0.0, v), b2)
    u = m / (1 - b1**age) / (sqrt(v / (1 - b2**age)) + eps)
    rest = is_matrix * scale * sign(g - unsketch(x, seed))
    return unsketch(u, seed) + rest + wd * w, m, v, age
