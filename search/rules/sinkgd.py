def sinkgd(w, g, m, v, *, scale=0.05, b1=0.9, b2=0.999, eps=1e-8):
    """The gradient with rows and columns of equal norms: no state for matrices, Adam for the rest.

    update = scale * sinkhorn(g): five rounds that normalise columns and rows in turn
    embeddings, the last layer and vectors: adam

    Scetbon et al. 2025 (arXiv 2502.06742), with its 5 rounds and its scale of 0.05 for matrices. m
    and v are kept, and not read, for these.
    """
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    u = m / (1 - b1**step) / (sqrt(v / (1 - b2**step)) + eps)
    normalise = (ndim > 1) * (is_last + is_embedding < 1)
    return where(normalise, scale * sinkhorn(g), u), m, v
