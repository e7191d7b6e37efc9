"""What learned optimizers are made of."""
