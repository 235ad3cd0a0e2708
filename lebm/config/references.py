"""What stays of a recipe when an overlay or a flag changes it, where the parser alone would drop it.

If a class is changed, the parser keeps those arguments that the new class has too, if their values fit. A
reference such as ``${latent_dim}`` has no value yet when the parser looks, so it would be dropped. And the
parser replaces a whole table, such as the learning rates by network, where an overlay names one entry. Both
are therefore given once more, after the change.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lebm.checkpoint.rebuild import allowed, resolve
from lebm.config import plain_yaml
from lebm.config.checks import load_recipe
from lebm.errors import UserError

__all__ = ["with_references"]

_HOMES = ("models", "samplers", "estimators", "inference", "data", "callbacks", "density_ratio")


def with_references(argv: Iterable[str], trust: Iterable[str]) -> list[str]:
    """The words of a command line, with the references that a change of class would drop.

    Args:
        argv: words for the parser; ``-c`` and its file are two words.
        trust: packages besides lebm, lightning and torch whose classes may be named.

    Raises:
        UserError: for a recipe that cannot be read.
    """
    words = list(argv)
    content: dict[str, Any] = {}
    out: list[str] = []
    while words:
        taken = [words.pop(0)]
        takes_value = taken[0] == "-c" or (taken[0].startswith("--") and "=" not in taken[0])
        if takes_value and words and not words[0].startswith("-"):
            taken.append(words.pop(0))
        change = load_recipe(Path(taken[1])) if taken[0] == "-c" and len(taken) > 1 else _as_recipe(taken)
        again = _dropped(content, change, list(trust))
        content = _merged(_merged(content, change), again)
        out += taken
        if again:
            out += ["-c", json.dumps(again)]
    return out


def _as_recipe(words: list[str]) -> dict[str, Any]:
    """``--model.init_args.prior Name`` as a recipe with the same effect; empty for other words."""
    key, _, value = words[0].removeprefix("--").partition("=")
    value = words[1] if len(words) > 1 else value
    if not value.replace(".", "").isidentifier():
        return {}
    nested: Any = {"class_path": value}
    for part in reversed(key.removesuffix(".class_path").split(".")):
        nested = {part: nested}
    return nested


def _dropped(old: Mapping[str, Any], new: Mapping[str, Any], trust: list[str]) -> dict[str, Any]:
    """What ``new`` would drop of ``old``: references where a class changes, and rows of tables."""
    lost: dict[str, Any] = {}
    before, after = (_class(block.get("class_path"), trust) for block in (old, new))
    if before and after and before is not after:
        given = new.get("init_args") or {}
        again = {
            name: value
            for name, value in (old.get("init_args") or {}).items()
            if name not in given and name in _arguments(after) and _has_reference(value)
        }
        return {"init_args": again} if again else {}
    for key, value in new.items():
        if not (isinstance(value, dict) and isinstance(old.get(key), dict)):
            continue
        if key != "init_args" and _is_table(value) and _is_table(old[key]):
            lost[key] = {**old[key], **value}
        elif below := _dropped(old[key], value, trust):
            lost[key] = below
    return lost


def _is_table(value: dict[str, Any]) -> bool:
    """Whether a mapping is a value by itself, such as the learning rate of each network."""
    return "class_path" not in value and not any(isinstance(item, dict) for item in value.values())


def _has_reference(value: Any) -> bool:
    return any(isinstance(item, str) and "${" in item for _, _, item in plain_yaml.walk(value))


def _class(name: Any, trust: list[str]) -> type | None:
    """The class of a ``class_path``, short or long; ``None`` for a name that the parser will refuse."""
    if not isinstance(name, str):
        return None
    if "." in name:
        try:
            return resolve(name, trust) if allowed(name, trust) else None
        except (UserError, ImportError, AttributeError):
            return None
    for home in _HOMES:
        cls = getattr(importlib.import_module(f"lebm.{home}"), name, None)
        if inspect.isclass(cls):
            return cls
    return None


def _arguments(cls: type) -> Iterator[str]:
    """Names of the arguments of a constructor, and of the arguments that it passes on by ``**kwargs``."""
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            yield from (parameter.name for parameter in parameters)
            if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
                return


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The content after ``new`` is read, with the classes and references of both."""
    out = dict(old)
    for key, value in new.items():
        nested = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merged(out[key], value) if nested else value
    return out
