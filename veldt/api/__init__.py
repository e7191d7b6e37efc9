"""The engines from Python: calls that run them, and the results that they return."""
