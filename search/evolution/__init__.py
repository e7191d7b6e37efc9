"""Regularized evolution over programs."""
