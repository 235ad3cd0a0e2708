"""Checks of a recipe before anything in it has an effect."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from lebm.config import plain_yaml
from lebm.config.recipes import nearest
from lebm.errors import UserError

__all__ = ["check_arguments", "check_recipe", "has_resolver", "load_recipe"]

_MAX_BYTES = 2**20
_BLOCK = ("class_path", "init_args", "dict_kwargs")


def load_recipe(path: Path) -> dict[str, Any]:
    """The content of a recipe as plain data.

    Raises:
        UserError: if the file is unreadable, too large, not YAML, not a mapping, or has Python tags.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path}: not an ordinary file")
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(
                f"{path}: {path.stat().st_size} bytes is too large for a recipe (limit {_MAX_BYTES})"
            )
        content = plain_yaml.load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8") from error
    except yaml.YAMLError as error:
        raise UserError(_yaml_message(path, error)) from error
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply for a recipe") from error
    if not isinstance(content, dict):
        kind = "empty" if content is None else f"a {type(content).__name__}"
        raise UserError(
            f"{path}: a recipe is a mapping with the sections model, data and trainer, this one is {kind}"
        )
    return content


def check_recipe(path: Path, seen: set[Path] | None = None) -> None:
    """Refuse resolvers, too many values and misspelt class blocks.

    Files that the recipe names are checked too.

    Args:
        path: the recipe.
        seen: files that are checked already; the recipe is added.

    Raises:
        UserError: with the file and the key.
    """
    seen = set() if seen is None else seen
    seen.add(path.resolve())
    content = load_recipe(path)
    _check_blocks(content, path)
    for key, text in _strings(content):
        _check_text(text, f"{path}: {key}")
        if any(_is_special(file) for file in (path.parent / text, Path(text))):
            raise UserError(f"{path}: {key}: {text} is neither a file nor a folder")
        if text.endswith((".yaml", ".yml", ".json")):
            for included in (path.parent / text, Path(text)):
                if included.is_file() and included.resolve() not in seen:
                    check_recipe(included, seen)


def check_arguments(argv: Iterable[str]) -> None:
    """Refuse resolvers in command-line values.

    Raises:
        UserError: with the argument.
    """
    for word in argv:
        _check_text(word, "command line")


def has_resolver(text: str) -> bool:
    """Whether a string calls an OmegaConf resolver, such as ``${oc.env:HOME}``; ``${key}`` calls none."""
    depth = 0
    for position, character in enumerate(text):
        if text.startswith("${", position):
            depth += 1
        elif character == "}" and depth:
            depth -= 1
        elif character == ":" and depth:
            return True
    return False


def _check_text(text: str, where: str) -> None:
    if has_resolver(text) and os.environ.get("LEBM_ALLOW_ENV") != "1":
        raise UserError(
            f"{where}: {text} calls a resolver; its value would be stored in the run folder and sent to"
            " loggers, so write the value itself, or set LEBM_ALLOW_ENV=1"
        )


def _is_special(path: Path) -> bool:
    """Whether there is a pipe, a device or a socket: reading it may never end."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _check_blocks(content: dict[str, Any], path: Path) -> None:
    """Refuse other keys than those of a class beside ``class_path``; the parser would complain about a
    wrong one.
    """
    for key, _, value in plain_yaml.walk(content):
        for name in value if isinstance(value, dict) and "class_path" in value else ():
            if name not in _BLOCK:
                hint = nearest(str(name), _BLOCK) or "; arguments of the class go below init_args"
                raise UserError(f"{path}: {key}: {name!r} cannot stand beside class_path{hint}")


def _strings(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """All texts of a recipe with their keys, and names with ``${`` with the keys of their mappings."""
    for key, _, value in plain_yaml.walk(content):
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, dict):
            yield from ((key, name) for name in value if isinstance(name, str) and "${" in name)


def _yaml_message(path: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark is not None else ""
    problem = getattr(error, "problem", None) or str(error)
    if "could not determine a constructor" in problem:
        return f"{path}{line}: Python tags are refused in a recipe; name classes by class_path"
    return f"{path}{line}: not valid YAML: {problem}"
