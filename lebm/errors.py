"""Errors that a user can cause and fix, and text that a terminal may show."""

from __future__ import annotations

__all__ = ["CheckpointWriteError", "UserError", "UserNotice", "one_line", "printable"]


class UserError(ValueError):
    """Something outside the program is wrong: a path, a file, a value. The command line prints it as one line
    and exits with status 2.
    """


class CheckpointWriteError(UserError):
    """A checkpoint could not be written: a full disk, a folder that is read-only or gone. Those written
    before are untouched.
    """


class UserNotice(UserWarning):
    """A warning to the user of a model or of data. The command line prints it as one line."""


def printable(text: str) -> str:
    """A text whose control characters, which a terminal would obey, are question marks; lines stay."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "?" for sign in text)


def one_line(text: str) -> str:
    """The same for a text that is to stay in its line, such as a name in a message: line breaks too.

    Example:
        >>> from lebm.errors import one_line
        >>> one_line("cat\\nrun_dir: elsewhere")
        'cat?run_dir: elsewhere'
    """
    return printable(text).translate({ord("\n"): "?", ord("\t"): "?"})
