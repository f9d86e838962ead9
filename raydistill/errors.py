"""Errors that end a command with a message of one line and exit code 2 or 1."""


class UserError(ValueError):
    """A mistake of the user, exit code 2; the message gives the value and what is allowed."""


class WorkError(RuntimeError):
    """Work that failed on a worker, exit code 1; the message gives the place and the reason."""
