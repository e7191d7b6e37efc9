"""Comparing what a search found with baselines, on seeds of their own."""
