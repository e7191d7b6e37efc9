def shampoo(w, g, left, right, *, eps=1e-4):
    """The gradient between inverse roots of its summed products over rows and over columns.

    left = left + g g^T;  right = right + g^T g
    matrices: update = (left + eps)^(-1/4) g (right + eps)^(-1/4);  vectors: g (right + eps)^(-1/2)

    Gupta et al. 2018 (arXiv 1802.09568), algorithm 1, whose sums start at eps times the identity.
    Tensors of more axes count as matrices; the paper has a factor for each axis. A vector's right
    is one number, the sum of its mean squares, where the paper has its full matrix.
    """
    left = left + row_gram(g)
    right = right + column_gram(g)
    is_matrix = ndim > 1
    shaped = where(is_matrix, matmul(inverse_root(left, 4.0, eps), g), g)
    return matmul(shaped, inverse_root(right, where(is_matrix, 4.0, 2.0), eps)), left, right
