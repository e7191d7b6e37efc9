def lion_k_norm(w, g, m, *, b1=0.9, b2=0.99, wd=1e-3):
    """Lion with the gradient of the Euclidean norm in place of the sign.

    c = (1 - b1) * g + b1 * m;  m = (1 - b2) * g + b2 * m;  update = c / |c| + wd * w

    Chen et al. 2023 (arXiv 2310.05898): Lion-K for K(x) = |x|, tensor by tensor, which keeps
    |w| <= 1 / wd. For K = sum|x| it is lion, for K the sum of singular values nearly muon.
    Constants are lion's.
    """
    c = interp(g, m, b1)
    m = interp(g, m, b2)
    return c / norm(c) + wd * w, m
