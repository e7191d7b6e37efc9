"""Errors of the command line; those of configs and packages are in `veldt.tasks.common.errors`."""

from veldt.tasks.common import errors


class UsageError(errors.VeldtError):
    """A command line asks for something that does not exist."""

    exit_code = errors.USAGE
