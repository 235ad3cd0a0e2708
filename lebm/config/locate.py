"""Where a key stands: the file and line of a recipe, or the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from lebm.config import plain_yaml

__all__ = ["place", "top_keys"]


def place(keys: Sequence[str], recipes: Sequence[Path], argv: Sequence[str], word: str = "") -> str:
    """``file:line: key: `` as far as it is known, to lead a message.

    Args:
        keys: the path of the key, in parts that may hold dots.
        recipes: the files that were read, in order.
        argv: the other words of the command line; a key that stands there is in no file.
        word: what the message complains about. Of several files with the key, the last one that also holds
            this word is named.
    """
    key = _bare(part for key in keys for part in key.split("."))
    if not key:
        return f"{recipes[-1]}: " if len(recipes) == 1 else ""
    for argument in argv:
        if argument.startswith("--"):
            given = _bare(argument[2:].split("=")[0].rstrip("+").split("."))
            if given == key or key.startswith(f"{given}."):
                return f"{key}: "
    holders = [(path, line) for path in recipes if (line := _line(path, key.split("."))) is not None]
    telling = [(path, line) for path, line in holders if word in path.read_text(encoding="utf-8")]
    for path, line in reversed(telling or holders):
        return f"{path}:{line}: {key}: "
    return f"{key}: "


def _bare(parts: Iterable[str]) -> str:
    """A key as people say it, without the parser's own levels."""
    return ".".join(part for part in parts if part not in ("init_args", "dict_kwargs"))


def _line(path: Path, key: Sequence[str]) -> int | None:
    """The line of a key in a recipe, or of the deepest part of it that is there (beyond the first)."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None
    found = None
    for part in key:
        entry = _child(node, part)
        if entry is None:
            break
        found, node = entry[0].start_mark.line + 1, entry[1]
    return found


def _child(node: Any, part: str) -> tuple[Any, Any] | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    entries = {name.value: (name, value) for name, value in node.value}
    if part in entries:
        return entries[part]
    return _child(entries["init_args"][1], part) if "init_args" in entries else None


def top_keys(path: Path) -> list[str]:
    """The names of the sections of a recipe; none if it cannot be read."""
    try:
        content = plain_yaml.load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return []
    return [str(key) for key in content] if isinstance(content, dict) else []
