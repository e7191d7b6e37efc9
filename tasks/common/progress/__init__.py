"""Displays of a command's progress."""
