def polargrad(w, g, m, v, *, b=0.95, b1=0.9, b2=0.999, eps=1e-8, wd=0.0):
    """Momentum's polar factor times its nuclear norm, and Adam for vectors.

    matrices: m = (1 - b) * g + b * m;  update = |m|_nuclear * polar(m) + wd * w
    others: adam with b1, b2

    Lau et al. 2025 (arXiv 2505.21799), momentum first, with the released code's constants; its
    polar factor is a few steps of QDWH, here exact. Tensors of more axes count as matrices.
    """
    is_matrix = ndim > 1
    beta = where(is_matrix, b, b1)
    m = interp(g, m, beta)
    v = interp(square(g), v, b2)
    u = m / (1 - b1**step) / (sqrt(v / (1 - b2**step)) + eps)
    return where(is_matrix, nuclear_norm(m) * polar(m) + wd * w, u), m, v
