"""The inner loop: training a task by an optimizer."""
