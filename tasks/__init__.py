"""Tasks to train: models with losses and data, and the inner loop that trains them."""
