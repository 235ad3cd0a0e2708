"""Errors that a user can cause and mend, text that a terminal may show, and how large plain data may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CheckpointWriteError", "UserError", "UserNotice", "check_size", "one_line", "printable"]

_LEVELS, _VALUES = 64, 100_000


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


def check_size(value: Any, where: str) -> None:
    """Refuse plain data of a stranger that are too large once shared parts are written out.

    A few lists that hold each other, or a few lines of YAML anchors, can stand for billions of values.

    Args:
        value: mappings, lists and tuples in each other, and anything else as leaves.
        where: the file or the part, for the message.

    Raises:
        UserError: for more than 64 levels or 100,000 values.

    Example:
        >>> from lebm.errors import check_size
        >>> check_size({"a": [1, 2]}, "mine.yaml")
    """
    _size(value, where, {}, 0)


def _size(value: Any, where: str, known: dict[int, int], depth: int) -> int:
    if depth > _LEVELS:
        raise UserError(f"{where}: nested too deeply (limit {_LEVELS} levels)")
    if not isinstance(value, Mapping | list | tuple):
        return 1
    if id(value) not in known:
        items = value.values() if isinstance(value, Mapping) else value
        known[id(value)] = 1 + sum(_size(item, where, known, depth + 1) for item in items)
    if known[id(value)] > _VALUES:
        raise UserError(f"{where}: more than {_VALUES} values once anchors and shared parts are written out")
    return known[id(value)]
