"""Learned optimizers, one module each."""
