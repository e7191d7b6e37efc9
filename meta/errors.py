"""Errors of meta-training that a user can put right."""


class MetaTrainError(ValueError):
    """A meta-training cannot be begun, resumed or gone on with; the message says why."""


class UnknownNameError(MetaTrainError):
    """A config names an optimizer, or an argument of one, that there is not. Exit code 2."""
