"""Estimators of meta-gradients."""
