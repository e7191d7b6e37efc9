def came(
    w, g, m, rows, columns, res_rows, res_columns,
    *, b1=0.9, b2=0.999, b3=0.9999, eps=1e-30, eps_res=1e-16, clipping_threshold=1.0, wd=0.0
):
    """Adafactor with momentum, where momentum that disagrees with the gradient counts less.

    rows, columns: as in adafactor with b2;  u = g / sqrt(rows * columns / mean(rows)), clipped
    m = (1 - b1) * u + b1 * m;  residual = (u - m)^2 + eps_res
    res_rows, res_columns: as rows and columns, of the residual, with b3
    update = m / sqrt(res_rows * res_columns / mean(res_rows)) + wd * w, and m + wd * w for vectors

    Luo et al. 2023 (arXiv 2307.02047), with the released code's constants.
    """
    squares = square(g) + eps
    rows = interp(row_mean(squares), rows, b2)
    columns = interp(column_mean(squares), columns, b2)
    u = g / (sqrt(rows / mean(rows)) * sqrt(columns))
    u = u / max(1.0, sqrt(mean(square(u))) / clipping_threshold)
    m = interp(u, m, b1)
    residual = square(u - m) + eps_res
    res_rows = interp(row_mean(residual), res_rows, b3)
    res_columns = interp(column_mean(residual), res_columns, b3)
    trusted = m / (sqrt(res_rows / mean(res_rows)) * sqrt(res_columns))
    return where(ndim > 1, trusted, m) + wd * w, m, rows, columns, res_rows, res_columns
