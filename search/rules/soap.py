def soap(
    w, g, m, v, left, right, q_left, q_right,
    *, b1=0.95, b2=0.95, b_gram=0.95, eps=1e-8, interval=10.0, wd=0.01
):
    """Adam in the slowly turning eigenbasis of Shampoo's two averages.

    g' = q_left^T g q_right;  m = (1 - b1) * g + b1 * m;  v = (1 - b2) * g'^2 + b2 * v
    u = sqrt(1 - b2^step) / (1 - b1^step) * (q_left^T m q_right) / (sqrt(v) + eps)
    update = q_left u q_right^T + wd * w
    left, right = averages with b_gram of g g^T and g^T g; at every interval-th step
    q = the Q of QR(left q_left), and alike on the right;  vectors: g' = g, which is adamw

    Vyas et al. 2024 (arXiv 2409.11321), algorithm 3, with the released code's constants and place
    of eps. Both bases start from the identity and are not sorted. The released code starts from the
    first gradient's eigenvectors, takes no first step, and sorts. Tensors of more axes count as
    matrices. A side beyond 8192 keeps the identity, as there from 10000 on.
    """
    turned = where(ndim > 1, norm(q_left), 0.0) > 0
    back_left = transpose(q_left)
    m = interp(g, m, b1)
    v = interp(square(where(turned, matmul(matmul(back_left, g), q_right), g)), v, b2)
    rate = sqrt(1 - b2**step) / (1 - b1**step)
    u = rate * where(turned, matmul(matmul(back_left, m), q_right), m) / (sqrt(v) + eps)
    update = where(turned, matmul(matmul(q_left, u), transpose(q_right)), u) + wd * w
    left = interp(row_gram(g), left, b_gram)
    right = interp(column_gram(g), right, b_gram)
    turn = every(step, interval)
    q_left = where(turn, eigenbasis(left, q_left), q_left)
    q_right = where(turn, eigenbasis(right, q_right), q_right)
    return update, m, v, left, right, q_left, q_right
