"""What ends a command in one line: the user's mistake (exit code 2), and work that failed (1)."""


class UserError(ValueError):
    """A mistake that the user can mend; the message says what was given and what is allowed."""


class WorkError(RuntimeError):
    """Work that failed on its workers; the message says where and why, in one line."""
