"""Families made harder or stranger: wrappers of a task family that change how its members train.

Each leaves a member's data, the scale of its losses, and the loss that it reports as they were.
"""
