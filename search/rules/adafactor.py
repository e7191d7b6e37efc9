def adafactor(w, g, rows, columns, *, decay_rate=0.8, eps=1e-30, clipping_threshold=1.0, scale=1e-3):
    """RMSProp that keeps the means of rows and columns only, in relative steps.

    b = 1 - step^-decay_rate
    rows, columns = averages with b of the row and column means of g^2 + eps
    u = g / sqrt(rows * columns / mean(rows));  u = u / max(1, rms(u) / clipping_threshold)
    update = u * max(rms(w), scale)

    Shazeer and Stern 2018 (arXiv 1804.04235). Equals
    `optax.adafactor(learning_rate, min_dim_size_to_factor=1)` on tensors of up to two axes; Optax
    keeps small matrices whole unless told so, and of more axes it factors the two longest. PyTorch
    bounds the learning rate by 1 / sqrt(step).
    """
    b = 1 - step ** (-decay_rate)
    squares = square(g) + eps
    rows = interp(row_mean(squares), rows, b)
    columns = interp(column_mean(squares), columns, b)
    u = g / (sqrt(rows / mean(rows)) * sqrt(columns))
    u = u / max(1.0, sqrt(mean(square(u))) / clipping_threshold)
    return u * max(sqrt(mean(square(w))), scale), rows, columns
