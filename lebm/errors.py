"""Errors that a user can cause and mend."""

__all__ = ["UserError"]


class UserError(ValueError):
    """Something outside the program is wrong: a path, a file, a value. The command line prints it as one line and exits with status 2."""
