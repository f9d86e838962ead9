"""What goes wrong on the user's side: the one exception that ends in one line and exit code 2."""


class UserError(ValueError):
    """A mistake that the user can mend; the message says what was given and what is allowed."""
