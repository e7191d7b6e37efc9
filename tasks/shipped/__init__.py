"""The shipped tasks: models with their data."""
