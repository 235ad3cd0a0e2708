"""Errors that a user can cause and fix, and lines that a terminal may show."""

from __future__ import annotations

import os
import sys
import traceback

__all__ = ["CheckpointWriteError", "UserError", "UserNotice", "fail", "one_line", "printable", "tell"]


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


def tell(line: str) -> None:
    """Print a line on the standard output, at once and without control characters."""
    print(one_line(line), flush=True)


def fail(message: str, status: int) -> int:
    """Print one line on stderr (and the traceback where ``LEBM_DEBUG`` asks for it); returns ``status``."""
    if os.environ.get("LEBM_DEBUG", "0") not in ("", "0") and sys.exc_info()[0] is not None:
        traceback.print_exc()
    print(f"lebm: error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return status
