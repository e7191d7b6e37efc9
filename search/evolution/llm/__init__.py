"""Calls of language models: who is asked what, by which way, and what it may cost."""
