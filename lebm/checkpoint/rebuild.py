"""Rebuilding components from descriptions that somebody else may have written.

A description names classes by path. Nothing is imported for a path unless its module lies in an allowed
package; the object must be a class defined in an allowed package, and it must fit the type of the argument it
is meant for."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import typing
from collections.abc import Iterable, Mapping
from itertools import chain
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from lebm.checkpoint.budget import LARGER, Budget
from lebm.component import Component
from lebm.errors import UserError, check_size

__all__ = ["ALLOWED", "allowed", "build", "check", "outline", "resolve"]

ALLOWED = ("lebm", "torch.nn")
FORMER: dict[str, str] = {}
"""Today's path by the path in older checkpoints, for classes that have moved to another package of lebm.

A class that has moved to another file of its package needs no entry: :func:`resolve` finds it.
"""
_DEPTH = 32


def allowed(path: str, trust: Iterable[str] = ()) -> bool:
    """Whether a dotted path lies in ``lebm``, ``torch.nn`` or one of the packages in ``trust``."""
    return any(path == package or path.startswith(package + ".") for package in (*ALLOWED, *trust))


def resolve(path: str, trust: Iterable[str] = ()) -> type:
    """The class of that path, or of the path that it has today if an older lebm wrote it.

    Raises:
        UserError: if the path is not allowed (then nothing has been imported), cannot be imported, or names
            no class of an allowed package.
    """
    trust = tuple(trust)
    parts = path.split(".") if isinstance(path, str) else []
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise UserError(f"{path!r} is not a class path")
    if not allowed(path, trust):
        raise UserError(
            f"the class {path} is outside the trusted packages ({', '.join((*ALLOWED, *trust))}); if you"
            f" trust it, add --trust {parts[0]}"
        )
    module_name, name = _current(path).rsplit(".", 1)
    found = getattr(_module(module_name, path), name, None)
    if not inspect.isclass(found) or not allowed(found.__module__, trust):
        raise UserError(f"{path} is not a class of a trusted package")
    return found


def _current(path: str) -> str:
    """The path of the class today.

    If a module of lebm has gone, or no longer holds the class, then the package around it is asked. The
    package answers only for what its ``__all__`` lists.
    """
    path = FORMER.get(path, path)
    if not re.fullmatch(r"lebm\.\w+\.\w+\.\w+", path):
        return path
    package, module, name = path.rsplit(".", 2)
    offered = getattr(_module(package, path), "__all__", ())
    return f"{package}.{name}" if name in offered and not _holds(f"{package}.{module}", name) else path


def _holds(module: str, name: str) -> bool:
    try:
        return hasattr(_module(module, f"{module}.{name}"), name)
    except UserError:
        return False


def _module(name: str, path: str) -> ModuleType:
    try:
        # find_spec imports the parents only, and these lie in the same allowed package
        if importlib.util.find_spec(name) is not None:
            return importlib.import_module(name)
        reason = f"there is no module {name}; run in the folder that holds it, or install it"
    except ModuleNotFoundError as error:
        reason = f"there is no module {error.name}; run in the folder that holds it, or install it"
    except Exception as error:  # whatever the user's own module does
        reason = f"{name} raises {type(error).__name__}: {error}"
    raise UserError(f"{path} is not a class that can be imported: {reason}")


def build(description: Any, expected: type, trust: Iterable[str] = (), where: str = "model") -> Any:
    """Instantiate ``{"class_path": ..., "init_args": {...}}`` and everything nested in it.

    The whole description is checked before the first constructor runs.

    Args:
        description: as made by :func:`lebm.component.describe`.
        expected: the class the result must be an instance of.
        trust: further packages whose classes are accepted.
        where: name of the place, for messages.

    Raises:
        UserError: naming the place and the class, for anything not allowed, not known or not fitting.
    """
    return check(description, expected, trust, where).make()


def check(description: Any, expected: type, trust: Iterable[str] = (), where: str = "model") -> _Plan:
    """The same as :func:`build` up to the first constructor: everything is checked, and nothing is made.

    Arguments and errors are those of :func:`build`.

    Returns:
        What can be made, by its ``make()``.
    """
    check_size(description, where)
    return _Plan(description, (expected,), tuple(trust), where, 0)


def sketch(description: Any, expected: type, state: Mapping[str, Any], trust: Iterable[str] = ()) -> Any:
    """The model of a description without memory for its tensors, which have shapes and no values.

    Args:
        description: as for :func:`build`.
        expected: the class of models that the result must be an instance of.
        state: tensors by the names of the model's parameters and buffers, with whatever else was stored.
        trust: as for :func:`build`.

    Raises:
        UserError: as :func:`build`, and for a model much larger than what was stored.
    """
    stored = sum(value.numel() for value in state.values() if isinstance(value, Tensor))
    limit = 2 * stored + 2**22
    with torch.device("meta"), Budget(limit, 5_000 + 200 * len(state)):
        model = build(description, expected, trust)
    if sum(value.numel() for value in chain(model.parameters(), model.buffers())) > limit:
        raise UserError(LARGER)
    return model


def outline(description: Any, expected: type, state: Mapping[str, Any], trust: Iterable[str] = ()) -> str:
    """Why some stored tensors do not fit a description, found without memory for the model; empty if they
    fit.

    Arguments and errors are those of :func:`sketch`.
    """
    model = sketch(description, expected, state, trust)
    own = dict(chain(model.named_parameters(), model.named_buffers()))
    for name in own.keys() & state.keys():
        if isinstance(state[name], Tensor) and state[name].shape != own[name].shape:
            return f"{name} has the shape {tuple(state[name].shape)} and not {tuple(own[name].shape)}"
    return ""


def _is_description(value: Any) -> bool:
    return isinstance(value, Mapping) and "class_path" in value


class _Plan:
    """A checked description, ready to be made."""

    def __init__(
        self, description: Any, expected: tuple[type, ...], trust: tuple[str, ...], where: str, depth: int
    ) -> None:
        if not _is_description(description) or set(description) - {"class_path", "init_args"}:
            raise UserError(f"{where}: expected a class_path with init_args")
        self.where = where
        self.cls = resolve(description["class_path"], trust)
        if not issubclass(self.cls, expected):
            names = " or ".join(sorted(cls.__name__ for cls in expected))
            raise UserError(f"{where}: {description['class_path']} is no {names}")
        if inspect.isabstract(self.cls):
            missing = ", ".join(sorted(self.cls.__abstractmethods__))  # type: ignore[attr-defined]
            raise UserError(f"{where}: {description['class_path']} is abstract: it does not define {missing}")
        arguments = description.get("init_args") or {}
        if not isinstance(arguments, Mapping):
            raise UserError(f"{where}: init_args must be a mapping")
        if issubclass(self.cls, Component):
            arguments = self.cls.from_former(dict(arguments))
        parameters = inspect.signature(self.cls).parameters
        hints = typing.get_type_hints(self.cls.__init__)
        self.arguments: dict[str, Any] = {}
        for name, value in arguments.items():
            if name not in parameters:
                raise UserError(f"{where}: {self.cls.__name__} has no argument {name!r}")
            slot = tuple(
                cls
                for cls in _classes(hints.get(name))
                if issubclass(cls, Component) or cls.__module__.startswith("torch.nn")
            )
            if slot and isinstance(value, str) and str not in _classes(hints.get(name)):
                raise UserError(f"{where}.{name}: expected a class_path with init_args")
            self.arguments[name] = self._plan(value, slot, trust, f"{where}.{name}", depth + 1)

    def _plan(
        self, value: Any, slot: tuple[type, ...], trust: tuple[str, ...], where: str, depth: int
    ) -> Any:
        if depth > _DEPTH:
            raise UserError(f"{where}: nested deeper than {_DEPTH} levels")
        if _is_description(value):
            return _Plan(value, slot or (Component,), trust, where, depth)
        if isinstance(value, Mapping):
            return {
                key: self._plan(item, slot, trust, f"{where}.{key}", depth + 1) for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._plan(item, slot, trust, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise UserError(f"{where}: a {type(value).__name__} is not a plain value")

    def make(self) -> Any:
        try:
            return self.cls(**{name: _made(value) for name, value in self.arguments.items()})
        except (TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{self.where}: {self.cls.__name__} cannot be built: {error}") from error


def _made(value: Any) -> Any:
    if isinstance(value, _Plan):
        return value.make()
    if isinstance(value, dict):
        return {key: _made(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_made(item) for item in value]
    return value


def _classes(hint: Any) -> list[type]:
    """All classes that occur in a type hint."""
    if inspect.isclass(hint) and not typing.get_args(hint):
        return [hint]
    return [cls for part in typing.get_args(hint) for cls in _classes(part)]
