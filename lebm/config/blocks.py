"""Copies of recipes that contain the blocks that they include."""

from __future__ import annotations

from pathlib import Path

import yaml

from lebm.config.recipe import included, load_recipe, merged, read

__all__ = ["standalone"]


def standalone(path: Path) -> str:
    """The text of a recipe with the sections of its blocks; it needs no other file.

    Comments stay, except in a section that recipe and block both have.

    Raises:
        UserError: for a recipe that cannot be read, and for an include that names no block.
    """
    text = path.read_text(encoding="utf-8")
    own = load_recipe(path)
    if "include" not in own:
        return text
    shared = {name: file for file in included(path, own) for name in load_recipe(file)}
    content, _ = merged(read(path))
    lines = text.splitlines()
    for key, value in reversed(yaml.compose(text).value):
        first, last = key.start_mark.line, value.end_mark.line + (value.end_mark.column > 0)
        while not lines[last - 1].strip() or lines[last - 1].startswith("#"):
            last -= 1  # the end of a section in block style is the start of the next one
        if key.value == "include":
            del lines[first:last]
        elif key.value in shared:
            lines[first:last] = _dumped(key.value, content)
    for name in shared:
        if name not in own:
            lines += ["", *_dumped(name, content)]
    return "\n".join(lines) + "\n"


def _dumped(name: str, content: dict) -> list[str]:
    return yaml.safe_dump({name: content[name]}, sort_keys=False, allow_unicode=True).splitlines()
