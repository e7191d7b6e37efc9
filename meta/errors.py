"""Errors of meta-training and of metagradients that a user can put right."""

from veldt.tasks.common import errors


class MetaTrainError(errors.VeldtError, ValueError):
    """A meta-training or tuning cannot start, resume or continue; the message says why."""


class UnknownNameError(MetaTrainError):
    """A config names an optimizer, or an argument of one, that there is not."""

    exit_code = errors.USAGE


class ReplayError(errors.VeldtError, ValueError):
    """A metagradient cannot be taken, or what was computed again is not what was computed before.

    The message says where, and what to do.
    """
