def subset_norm(w, g, m, rows, columns, *, b1=0.9, b2=0.999, eps=1e-6, wd=0.0):
    """Adam with one second moment for each row of a tall matrix, or each column of a wide one.

    m as in adam;  rows, columns = averages with b2 of the squared norms of g's rows and columns
    v = rows where a matrix has no fewer rows than columns, else columns
    update = sqrt(1 - b2^step) / (1 - b1^step) * m / (sqrt(v) + eps) + wd * w

    Nguyen and Nguyen 2024 (arXiv 2411.07120), Adam with subset norms, with the released code's
    constants and its place of eps. A vector's columns are its entries: there it is adam.
    """
    m = interp(g, m, b1)
    rows = interp(fan_out * row_mean(square(g)), rows, b2)
    columns = interp(fan_in * column_mean(square(g)), columns, b2)
    v = where(ndim > 1, where(fan_in >= fan_out, rows, columns), columns)
    rate = sqrt(1 - b2**step) / (1 - b1**step)
    return rate * (m / (sqrt(v) + eps)) + wd * w, m, rows, columns
