def conda(
    w, g, m, v, q_left, q_right,
    *, b1=0.9, b2=0.999, eps=1e-8, interval=10.0, wd=0.0
):
    """Adam in a basis of the momentum's singular vectors, on the shorter side of a matrix.

    m = (1 - b1) * g + b1 * m;  u, x = q_left^T m, q_left^T g where there are no more rows than
    columns, else m q_right, g q_right;  v = (1 - b2) * x^2 + b2 * v
    update = sqrt(1 - b2^step) / (1 - b1^step) * (u / (sqrt(v) + eps), turned back) + wd * w
    at steps 1, 1 + interval, ...: q = the Q of QR(m m^T q_left), of QR(m^T m q_right)

    Wang et al. 2025 (arXiv 2509.24218), with the released code's constants and place of eps. The
    basis takes one QR step of power iteration, from the identity, every 10 steps, as soap does; the
    paper has a singular value decomposition every 2000. Tensors of more axes count as matrices;
    vectors take adamw.
    """
    m = interp(g, m, b1)
    turn = every(step - 1, interval)
    q_left = where(turn, eigenbasis(row_gram(m), q_left), q_left)
    q_right = where(turn, eigenbasis(column_gram(m), q_right), q_right)
    wide = fan_in <= fan_out
    back_left = transpose(q_left)
    is_matrix = ndim > 1
    u = where(is_matrix, where(wide, matmul(back_left, m), matmul(m, q_right)), m)
    x = where(is_matrix, where(wide, matmul(back_left, g), matmul(g, q_right)), g)
    v = interp(square(x), v, b2)
    u = u / (sqrt(v) + eps)
    back = where(wide, matmul(q_left, u), matmul(u, transpose(q_right)))
    rate = sqrt(1 - b2**step) / (1 - b1**step)
    return rate * where(is_matrix, back, u) + wd * w, m, v, q_left, q_right
