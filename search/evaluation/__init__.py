"""Training a candidate and scoring it."""
