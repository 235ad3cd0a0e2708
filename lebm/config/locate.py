"""The location of a key: the file and line of a recipe, or the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from lebm.config import plain_yaml

__all__ = ["location"]


def location(keys: Sequence[str], recipes: Sequence[Path], argv: Sequence[str], word: str = "") -> str:
    """``file:line: key: `` for the start of a message; an unknown part is left out.

    Args:
        keys: the path of the key, in parts that may contain dots.
        recipes: the files that were read, in order; :mod:`lebm.config.checks` has checked them.
        argv: the other words of the command line. A key on the command line counts as in no file.
        word: the word that the message is about. If several files have the key, the location is in the last
            one that also contains this word.
    """
    key = _bare(part for key in keys for part in key.split("."))
    if not key:
        return f"{recipes[-1]}: " if len(recipes) == 1 else ""
    for argument in argv:
        if argument.startswith("--"):
            given = _bare(argument[2:].split("=")[0].rstrip("+").split("."))
            if given.removesuffix(".class_path") == key or key.startswith(f"{given}."):
                return f"{key}: "
    holders = [(path, line) for path in recipes if (line := _line(path, key.split("."))) is not None]
    telling = [(path, line) for path, line in holders if word in path.read_text(encoding="utf-8")]
    for path, line in reversed(telling or holders):
        return f"{path}:{line}: {key}: "
    return f"{key}: "


def _bare(parts: Iterable[str]) -> str:
    """A key as users write it, without the levels that only the parser needs."""
    return ".".join(part for part in parts if part not in ("init_args", "dict_kwargs"))


def _line(path: Path, key: Sequence[str]) -> int | None:
    """The line of a key in a recipe, or of the deepest part of the key that the recipe has; else ``None``."""
    node = plain_yaml.compose(path.read_text(encoding="utf-8"))
    line = None
    for part in key:
        entry = _child(node, part)
        if entry is None:
            break
        line, node = entry[0].start_mark.line + 1, entry[1]
    return line


def _child(node: Any, part: str) -> tuple[Any, Any] | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    entries = {name.value: (name, value) for name, value in node.value}
    if part in entries:
        return entries[part]
    return _child(entries["init_args"][1], part) if "init_args" in entries else None
