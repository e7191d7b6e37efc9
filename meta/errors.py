"""Errors of meta-training that a user can put right."""


class MetaTrainError(ValueError):
    """A meta-training cannot be begun, resumed or gone on with; the message says why."""
