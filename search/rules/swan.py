def swan(w, g, m, v, *, b1=0.9, b2=0.999, eps=1e-8, eps_white=1e-6):
    """The gradient with standardised columns, whitened: no state for matrices, Adam for the rest.

    x = (g - column_mean(g)) / sqrt(column_mean((g - column_mean(g))^2))
    y = x (x^T x + eps_white)^(-1/2);  update = |x| / |y| * y
    embeddings, the last layer and vectors: adam

    Ma et al. 2024 (arXiv 2412.13148). A column holds what goes into one output, a row of their
    weights. They whiten by a few steps of Newton-Schulz, here exactly; x has means of 0, so one
    direction may be missing, and eps_white keeps it so. m and v are kept, and not read, for
    whitened matrices.
    """
    x = g - column_mean(g)
    x = x / sqrt(column_mean(square(x)))
    y = matmul(x, inverse_root(column_gram(x), 2.0, eps_white))
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    u = m / (1 - b1**step) / (sqrt(v / (1 - b2**step)) + eps)
    whiten = (ndim > 1) * (is_last + is_embedding < 1)
    return where(whiten, norm(x) / norm(y) * y, u), m, v
