def adamp(w, g, m, v, *, b1=0.9, b2=0.999, eps=1e-8, delta=0.1, wd_ratio=0.1, wd=0.0):
    """Adam without the part of its step that only makes scale-invariant weights longer.

    u = m_hat / (sqrt(v_hat) + eps), with m_hat and v_hat as in adam
    of each column: u loses its part along w where all cosines of g and w are below
    delta / sqrt(fan_in); else the whole tensor does, if its cosine is below
    delta / sqrt(fan_in * fan_out); vectors never do
    update = u + wd * w, and wd is wd_ratio times as large where u lost something

    Heo et al. 2021 (arXiv 2006.08217). A column holds what goes into one output.
    """
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    u = m / (1 - b1**step) / (sqrt(v / (1 - b2**step)) + eps)
    lengths = column_norm(w) + eps
    cosines = abs(fan_in * column_mean(g * w)) / ((column_norm(g) + eps) * lengths)
    by_column = (ndim > 1) * (amax(cosines) < delta / sqrt(fan_in))
    length = norm(w) + eps
    cosine = abs(dot(g, w)) / ((norm(g) + eps) * length)
    whole = (ndim > 1) * (cosine < delta / sqrt(fan_in * fan_out))
    along_columns = w / lengths * (fan_in * column_mean(w * u) / lengths)
    along = w / length * (dot(w, u) / length)
    u = u - where(by_column, along_columns, whole * along)
    return u + wd * where(max(by_column, whole), wd_ratio, 1.0) * w, m, v
