"""Blocks: sections that several recipes share. A recipe includes them by name; a copy of it contains them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from lebm.config import checks, plain_yaml, recipes
from lebm.errors import UserError

__all__ = ["included", "standalone"]


def included(path: Path, content: dict[str, Any]) -> list[Path]:
    """The files of the blocks that a recipe includes, in the order in which they are read.

    A block is read before the recipe, so the values of the recipe replace those of the block. A name such as
    ``data/mnist`` is a block of the package. A name that ends in ``.yaml`` is a file in the folder of the
    recipe, or below it. A block includes no further blocks.

    Args:
        path: the recipe.
        content: the recipe as plain data.

    Raises:
        UserError: for an ``include`` that is not a name or a list of names, that names no block, or that
            leads out of the recipe's folder, and for a block that includes another block.
    """
    names = content.get("include") or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: include: expected the name of a block or a list of names, not {names!r}")
    files = [_block(path, name) for name in names]
    for file in files:
        if "include" in checks.load_recipe(file):
            raise UserError(f"{file}: include: a block cannot include another block")
    return files


def _block(path: Path, name: str) -> Path:
    if not name.endswith((".yaml", ".yml")):
        known = recipes.blocks()
        if name not in known:
            hint = recipes.nearest(name, known) or f"; the blocks are {', '.join(known)}"
            raise UserError(f"{path}: include: there is no block {name!r}{hint}")
        return known[name]
    file = path.parent / name
    if not file.is_file():
        raise UserError(f"{path}: include: there is no file {file}")
    return file


def standalone(path: Path) -> str:
    """The text of a recipe with the text of its blocks; it needs no other file. Comments stay.

    Raises:
        UserError: for an include that :func:`included` refuses, and for a recipe that changes the class of a
            block. Such a recipe must contain the section itself.
    """
    text = path.read_text(encoding="utf-8")
    # The last block comes first, because its values replace those of the blocks before it.
    for file in reversed(included(path, checks.load_recipe(path))):
        text = _filled(text, file.read_text(encoding="utf-8"), str(path))
    return text


def _filled(text: str, block: str, path: str) -> str:
    """A recipe with the entries of a block that it lacks, and without its ``include``."""
    recipe, shared = (plain_yaml.compose(source) for source in (text, block))
    theirs = {key.value: (key, value) for key, value in shared.value}
    lines = text.splitlines()
    for key, value in reversed(recipe.value):
        first, last = _span(text, key, value)
        if key.value == "include":
            del lines[first:last]
        elif key.value in theirs:
            merged = _merged(text, value, block, theirs.pop(key.value)[1], f"{path}: {key.value}")
            lines[first:last] = [*lines[first : key.start_mark.line], f"{key.value}:", *merged]
    for key, value in theirs.values():
        lines += ["", *_entry(block, key, value, False, 0)]
    return "\n".join(lines) + "\n"


def _merged(
    text: str, ours: yaml.Node, block: str, theirs: yaml.Node, where: str, indent: int = 2
) -> list[str]:
    """The lines of a section that recipe and block both have, without the line of its key.

    The entries of the block come first, in their order and with the recipe's values. Then come the other
    entries of the recipe.
    """
    if not (isinstance(ours, yaml.MappingNode) and isinstance(theirs, yaml.MappingNode)):
        raise UserError(f"{where}: expected a mapping, as in the included block")
    own = {key.value: (key, value) for key, value in ours.value}
    lines: list[str] = []
    for key, value in theirs.value:
        if key.value not in own:
            lines += _entry(block, key, value, bool(theirs.flow_style), indent)
            continue
        own_key, own_value = own.pop(key.value)
        if key.value == "class_path" and own_value.value != value.value:
            raise UserError(
                f"{where}: the included block has another class, {value.value}; write the section into the"
                " recipe, without the block"
            )
        if isinstance(value, yaml.MappingNode) and isinstance(own_value, yaml.MappingNode):
            below = _merged(text, own_value, block, value, f"{where}.{key.value}", indent + 2)
            lines += [f"{' ' * indent}{key.value}:", *below]
        else:
            lines += _entry(text, own_key, own_value, bool(ours.flow_style), indent)
    for own_key, own_value in own.values():
        lines += _entry(text, own_key, own_value, bool(ours.flow_style), indent)
    return lines


def _entry(text: str, key: yaml.Node, value: yaml.Node, in_braces: bool, indent: int) -> list[str]:
    """The source of one entry with its comments, indented by ``indent`` columns."""
    pad = " " * indent
    if in_braces:
        source = text[key.start_mark.index : value.end_mark.index]
        return [pad + " ".join(source.split())]
    first, last = _span(text, key, value)
    return [(pad + line[key.start_mark.column :]).rstrip() for line in text.splitlines()[first:last]]


def _span(text: str, key: yaml.Node, value: yaml.Node) -> tuple[int, int]:
    """The first line of an entry in block style and the line after its last one, with comments above it."""
    lines = text.splitlines()
    first, last = key.start_mark.line, value.end_mark.line + (value.end_mark.column > 0)
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    while not lines[last - 1].strip() or lines[last - 1].lstrip().startswith("#"):
        last -= 1  # the end mark is at the start of the next entry
    return first, last
