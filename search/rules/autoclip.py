def autoclip(w, g, h, m, v, *, share=0.1, b1=0.9, b2=0.999, eps=1e-8):
    """Adam on gradients clipped to a percentile of the norms that the run has had.

    h = h with |g| remembered, over all tensors;  limit = the share-quantile of h
    x = g * min(1, limit / |g|);  m, v, update as in adam, of x

    Seetharaman et al. 2020 (arXiv 2007.14469), with their tenth percentile, before Adam. The
    history holds the last 128 norms, and theirs all. PyTorch's clipping adds 1e-6 to the norm.
    """
    h = remember(h, global_norm(g))
    x = g * min(1.0, percentile(h, share) / global_norm(g))
    m = interp(x, m, b1)
    v = interp(square(x), v, b2)
    return m / (1 - b1**step) / (sqrt(v / (1 - b2**step)) + eps), h, m, v
