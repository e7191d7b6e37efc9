"""Families of tasks to meta-train on, and the distribution that families are drawn from."""
