"""Wrappers of a task family that change how the members train, to make them harder.

Each leaves a member's data, the scale of its losses, and the loss that it reports as they were.
"""
