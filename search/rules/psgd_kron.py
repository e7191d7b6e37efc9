def psgd_kron(
    w, g, m, v, q_left, q_right, top_left, top_right,
    *, b=0.9, mu=0.1, b_top=0.9, damping=1e-9, b1=0.9, b2=0.999, eps=1e-8, wd=0.0
):
    """Momentum between two symmetric factors that learn to whiten the gradient, without inverses.

    matrices: m = average of g with min(b, 1 - 1 / step);  P = q q, on both sides
    update = P_left m P_right + wd * w, where each q has moved first:
    x = P_left g P_right;  a = x x^T + (damping * |P_right|)^2 * P_left^2
    top = max(|a| + fan_out, its average with b_top);  p = q - mu / (2 top) * (a q - fan_out * q)
    p = p - mu / (2 top) * (p a - fan_out * p);  q = (p + p^T) / 2, and alike on the right
    q starts at mean(g^4)^(-1/16) times the identity;  vectors: adamw

    Li 2015 and 2024 (arXiv 1512.04202, 2402.11858): PSGD's KronWhiten in the form QUAD of the
    released code, with dense factors on both sides. There |a| is an estimate of the largest
    eigenvalue, here the Frobenius norm; the noise of the damping is here its mean; factors are
    balanced at random steps there.
    """
    is_matrix = ndim > 1
    m = interp(g, m, where(is_matrix, min(b, 1 - 1 / step), b1))
    v = interp(square(g), v, b2)
    start = where(norm(g) > 0, mean(square(square(g))) ** -0.0625, 1.0)
    q_left = where(step < 2, start * inverse_root(0.0 * row_gram(g), 1.0, 1.0), q_left)
    q_right = where(step < 2, start * inverse_root(0.0 * column_gram(g), 1.0, 1.0), q_right)
    p_left = matmul(q_left, q_left)
    p_right = matmul(q_right, q_right)
    x = matmul(matmul(p_left, g), p_right)
    a = row_gram(x) + square(damping * norm(p_right)) * matmul(p_left, p_left)
    top = norm(a) + fan_out
    top_left = max(interp(top, mean(top_left), b_top), top)
    rate = 0.5 * mu / top_left
    p = q_left - rate * (matmul(a, q_left) - fan_out * q_left)
    p = p - rate * (matmul(p, a) - fan_out * p)
    q_left = 0.5 * (p + transpose(p))
    a = column_gram(x) + square(damping * norm(p_left)) * matmul(p_right, p_right)
    top = norm(a) + fan_in
    top_right = max(interp(top, mean(top_right), b_top), top)
    rate = 0.5 * mu / top_right
    p = q_right - rate * (matmul(a, q_right) - fan_in * q_right)
    p = p - rate * (matmul(p, a) - fan_in * p)
    q_right = 0.5 * (p + transpose(p))
    y = matmul(matmul(q_left, matmul(q_left, m)), matmul(q_right, q_right))
    u = m / (1 - b1**step) / (sqrt(v / (1 - b2**step)) + eps)
    return where(is_matrix, y, u) + wd * w, m, v, q_left, q_right, top_left, top_right
