"""User errors, a check of arguments, and lines that are safe to print in a terminal."""

import os
import sys
import traceback

__all__ = [
    "CheckpointWriteError",
    "UserError",
    "UserNotice",
    "at_least",
    "data_error",
    "fail",
    "one_line",
    "printable",
    "tell",
]


class UserError(ValueError):
    """An error in a path, a file or a value. The command line prints one line and exits with status 2."""


def at_least(least: int, **numbers: int | None) -> None:
    """Raise a ``ValueError`` for arguments below ``least``, by name; ``None`` is accepted."""
    for name, value in numbers.items():
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")


def data_error(path: str, text: str) -> UserError:
    """Return an error about the data at a path, which the message names."""
    return UserError(f"data path {path!r}: {text}")


class CheckpointWriteError(UserError):
    """An error of writing a checkpoint: a full disk, or a read-only or missing folder. Earlier checkpoints
    are untouched.
    """


class UserNotice(UserWarning):
    """A warning for users of a model or of data, which the command line prints as one line."""


def printable(text: str) -> str:
    """Return a text with question marks in place of control characters; line breaks stay."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "?" for sign in text)


def one_line(text: str) -> str:
    """Return a text on one line, with question marks in place of control characters and line breaks.

    Example:
        >>> from lebm.errors import one_line
        >>> one_line("cat\\nrun_dir: elsewhere")
        'cat?run_dir: elsewhere'
    """
    return printable(text).translate({ord("\n"): "?", ord("\t"): "?"})


def tell(line: str) -> None:
    """Print a line on the standard output, flushed and without control characters."""
    print(one_line(line), flush=True)


def fail(message: str, status: int) -> int:
    """Print one line on stderr, with the traceback if ``LEBM_DEBUG`` is set; return ``status``."""
    if os.environ.get("LEBM_DEBUG", "0") not in ("", "0") and sys.exc_info()[0] is not None:
        traceback.print_exc()
    print(f"lebm: error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return status
