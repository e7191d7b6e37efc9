"""Configs of a search."""
