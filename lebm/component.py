"""Components that can describe themselves: a class path and plain arguments, nothing else.

A checkpoint stores these descriptions and rebuilds the nested model from them, so that no module is ever
pickled and a model built in Python is stored exactly as one built from a recipe."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Component", "DescriptionError", "component_line", "describe"]

Plain = None | bool | int | float | str | list | dict


class DescriptionError(TypeError):
    """An object has no plain description, so a checkpoint could not rebuild it."""


class Component:
    """Mixin that records the arguments of the outermost constructor call.

    Any argument may be plain (``None``, ``bool``, ``int``, ``float``, ``str``, lists and string-keyed
    mappings of these) or another component. Nothing is checked at construction, so that experiments in Python
    stay free; :func:`describe`, which is called when a checkpoint is saved, refuses what cannot be rebuilt.
    """

    _init_arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _recording(cls.__dict__["__init__"])  # type: ignore[method-assign]


def _recording(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def recorded(self: Any, *args: Any, **kwargs: Any) -> None:
        if "_init_arguments" not in self.__dict__:  # the outermost constructor comes first
            try:
                bound = signature.bind(self, *args, **kwargs)
            except TypeError:
                bound = None  # the call below raises Python's own message
            if bound is not None:
                bound.apply_defaults()
                arguments = dict(list(bound.arguments.items())[1:])
                # object.__setattr__, because nn.Module refuses attributes before its own constructor has run
                object.__setattr__(self, "_init_arguments", arguments)
        init(self, *args, **kwargs)

    return recorded


def describe(obj: Any, where: str = "") -> Plain:
    """Turn a component into ``{"class_path": ..., "init_args": {...}}``, recursively; plain values pass
    through.

    Args:
        obj: a component or a plain value.
        where: the name of the argument, for the error message.

    Raises:
        DescriptionError: if some argument is neither plain nor a component, or its class cannot be named by a
            path.
    """
    if obj is None or isinstance(obj, bool | int | float | str):
        return obj
    if isinstance(obj, list | tuple):
        return [describe(item, f"{where}[{position}]") for position, item in enumerate(obj)]
    if isinstance(obj, Mapping):
        if not all(isinstance(key, str) for key in obj):
            raise DescriptionError(
                f"{where or 'mapping'}: a mapping in a component's arguments must have string keys"
            )
        return {key: describe(item, f"{where}.{key}") for key, item in obj.items()}
    cls = type(obj)
    if isinstance(obj, Component):
        if "<" in cls.__qualname__:
            raise DescriptionError(
                f"{where or cls.__qualname__}: a class defined inside a function cannot be rebuilt; move it"
                " to a module"
            )
        arguments = getattr(obj, "_init_arguments", {})
        return {
            "class_path": f"{cls.__module__}.{cls.__qualname__}",
            "init_args": {
                key: describe(item, f"{where}.{key}".lstrip(".")) for key, item in arguments.items()
            },
        }
    raise DescriptionError(
        f"{where or 'object'}: {cls.__module__}.{cls.__qualname__} has no plain description; "
        "derive it from lebm.component.Component so that a checkpoint can rebuild it"
    )


def component_line(part: Any) -> str:
    """A description of a component as one would write it in Python; anything else as ``str`` gives it.

    Example:
        >>> component_line({"class_path": "lebm.samplers.Langevin", "init_args": {"steps": 60}})
        'Langevin(steps=60)'
    """
    if not isinstance(part, Mapping) or "class_path" not in part:
        return str(part)
    arguments = dict(part.get("init_args") or {})
    listed = ", ".join(f"{name}={value}" for name, value in arguments.items() if value is not None)
    return f"{part['class_path'].rpartition('.')[2]}({listed})"
