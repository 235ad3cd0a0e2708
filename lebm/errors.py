"""Errors that a user can cause and mend."""

__all__ = ["CheckpointWriteError", "UserError"]


class UserError(ValueError):
    """Something outside the program is wrong: a path, a file, a value. The command line prints it as one line
    and exits with status 2.
    """


class CheckpointWriteError(UserError):
    """A checkpoint could not be written: a full disk, a folder that is read-only or gone. Those written
    before are untouched.
    """
