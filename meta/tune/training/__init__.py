"""The numbers that a tuning moves, and the task and the transform that they become part of."""
