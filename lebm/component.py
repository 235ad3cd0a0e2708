"""Components, which can be described by a class path and plain arguments alone.

A checkpoint stores these descriptions and rebuilds the model from them, so that no module is pickled and a
model built in Python is stored in the same form as a model of a recipe.
"""

import contextlib
import copy
import functools
import inspect
import numbers
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

__all__ = [
    "Component",
    "DescriptionError",
    "component_line",
    "constructor_parameters",
    "describe",
    "public_path",
    "recorded",
]

Plain = None | bool | int | float | str | list | dict


class DescriptionError(TypeError):
    """An error for an object without a plain description, which a checkpoint could not rebuild."""


class Component:
    """Mixin that records the arguments of the outermost constructor call.

    Arguments are plain (``None``, ``bool``, numbers, ``str``, paths, lists and string-keyed mappings of
    these) or other components. They are not checked at construction: an object that cannot be described can
    be trained, but its checkpoints hold weights only.
    """

    _init_arguments: dict[str, Any]
    former: ClassVar[Mapping[str, Any]] = {}
    """Removed arguments, each with the value that describes the current behaviour."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _recording(cls.__dict__["__init__"])  # type: ignore[method-assign]
        owner = next((base for base in cls.__mro__ if "extra_repr" in vars(base)), Component)
        if not issubclass(owner, Component):  # instead of nn.Module's, which shows no arguments
            cls.extra_repr = _arguments_shown  # type: ignore[attr-defined]

    @classmethod
    def from_former(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return current arguments for the arguments of a checkpoint of an older lebm."""
        gone = cls.former
        return {name: value for name, value in arguments.items() if name not in gone or value != gone[name]}

    def __repr__(self) -> str:
        """Return the class and its arguments without defaults; a module shows its modules too."""
        if hasattr(self, "_modules"):
            return super().__repr__()
        return f"{type(self).__name__}({_arguments_shown(self)})"


def constructor_parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Return the parameters of a constructor by name, including those passed to its base by ``**kwargs``.

    Example:
        >>> from lebm.component import constructor_parameters
        >>> class Base:
        ...     def __init__(self, seed=0): ...
        >>> class Method(Base):
        ...     def __init__(self, energy, **shared):
        ...         super().__init__(**shared)
        >>> list(constructor_parameters(Method))
        ['energy', 'seed']
    """
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base):
            own = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
            found |= {p.name: p for p in own if p.name not in found and p.kind not in _COLLECTED}
            if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in own):
                break
    return found


_COLLECTED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _recording(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def recorded(self: Any, *args: Any, **kwargs: Any) -> None:
        if "_init_arguments" not in self.__dict__:  # the outermost constructor comes first
            with contextlib.suppress(TypeError):  # the call below raises Python's own message
                arguments = _kept(signature, args, kwargs)
                # object.__setattr__, because nn.Module rejects attributes before its own constructor has run
                object.__setattr__(self, "_init_arguments", arguments)
        try:
            init(self, *args, **kwargs)
        except (TypeError, ValueError) as error:
            vars(error).setdefault("component", type(self).__name__)  # for messages
            raise

    return recorded


def recorded(cls: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Build an object of another class, such as an ``nn.Module``, and record its arguments.

    Example:
        >>> from torch import nn
        >>> from lebm.component import describe, recorded
        >>> describe(recorded(nn.LSTM, 4, hidden_size=8))["init_args"]["hidden_size"]
        8
    """
    arguments = _kept(inspect.signature(cls.__init__), args, kwargs)  # type: ignore[misc]
    made = cls(*args, **kwargs)
    if "_init_arguments" not in vars(made):
        object.__setattr__(made, "_init_arguments", arguments)
    return made


def _kept(signature: inspect.Signature, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return copies of the arguments without ``self``, with ``*args`` as one list if there are any."""
    bound = signature.bind(None, *args, **kwargs)
    bound.apply_defaults()
    kept: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            kept |= value
        elif kind is not inspect.Parameter.VAR_POSITIONAL or value:
            kept[name] = value
    return {
        name: copy.copy(value) if isinstance(value, list | dict) else value for name, value in kept.items()
    }


def _arguments_shown(component: Component) -> str:
    """Return the constructor arguments for ``repr``, such as ``steps=60, step_size=0.4``, without modules."""
    inside = hasattr(component, "_modules")
    defaults = {name: each.default for name, each in constructor_parameters(type(component)).items()}
    return ", ".join(
        f"{name}={value!r}"
        for name, value in component.__dict__.get("_init_arguments", {}).items()
        if not _same(value, defaults.get(name)) and not (inside and _holds_modules(value))
    )


def _same(value: Any, default: Any) -> bool:
    if isinstance(value, list | tuple) and isinstance(default, list | tuple):
        return list(value) == list(default)
    return value is default or (type(value) is type(default) and value == default)


def _holds_modules(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return any(_holds_modules(item) for item in value)
    return hasattr(value, "_modules")


def public_path(cls: type) -> str:
    """Return the shortest path of a class, by the outermost package whose ``__all__`` lists it, without
    imports.
    """
    name = cls.__qualname__
    package = ""
    home = cls.__module__.replace("__mp_main__", "__main__")  # as in the processes of a notebook
    for part in home.split("."):
        package = f"{package}.{part}".lstrip(".")
        names = vars(sys.modules[package]) if package in sys.modules else {}
        if name in names.get("__all__", ()) and names.get(name) is cls:
            return f"{package}.{name}"
    return f"{home}.{name}"


def describe(obj: Any, where: str = "", strict: bool = True) -> Plain:
    """Describe a component as ``{"class_path": ..., "init_args": {...}}``, recursively.

    Plain values are returned, with numbers of NumPy as numbers of Python and paths as text. A part compiled
    by ``torch.compile`` is described as the part itself. A class is named by its :func:`public_path`, so that
    files can be renamed.

    Args:
        obj: component or plain value.
        where: name of the argument for the error message.
        strict: whether an object that cannot be described is an error. If ``False``, it is replaced by the
            name of its class, for reading only.

    Raises:
        DescriptionError: if an argument is neither plain nor a component, or its class has no import path.
    """
    obj = getattr(obj, "_orig_mod", obj)
    if obj is None or isinstance(obj, bool):
        return obj
    if isinstance(obj, numbers.Real):  # also numbers of NumPy, which checkpoints must not hold
        return int(obj) if isinstance(obj, numbers.Integral) else float(obj)
    if isinstance(obj, str | os.PathLike):
        return str.__str__(os.fspath(obj))
    if isinstance(obj, list | tuple):
        return [describe(item, f"{where}[{position}]", strict) for position, item in enumerate(obj)]
    if isinstance(obj, Mapping) and (not strict or all(isinstance(key, str) for key in obj)):
        return {str(key): describe(item, f"{where}.{key}", strict) for key, item in obj.items()}
    cls = type(obj)
    arguments = _arguments_of(obj)
    if arguments is not None and not (strict and "." in cls.__qualname__):
        return {
            "class_path": public_path(cls),
            "init_args": {
                key: describe(item, f"{where}.{key}".lstrip("."), strict) for key, item in arguments.items()
            },
        }
    if not strict:
        return f"{cls.__module__}.{cls.__qualname__}"
    why = (
        f"{cls.__module__}.{cls.__qualname__} has no plain description; build it by"
        " lebm.component.recorded(CLASS, ...) so that a checkpoint can rebuild it"
    )
    if isinstance(obj, Mapping):
        why = "a mapping in a component's arguments must have string keys"
    elif arguments is not None:
        why = (
            "a class defined inside a function or another class cannot be rebuilt; move it to the top level"
            " of a module"
        )
    raise DescriptionError(f"{where or cls.__qualname__}: {why}")


def _arguments_of(obj: Any) -> dict[str, Any] | None:
    """Return the recorded arguments of an object, the attributes of a ``torch.nn`` layer, or ``None``."""
    arguments = vars(obj).get("_init_arguments") if hasattr(obj, "__dict__") else None
    if arguments is not None or isinstance(obj, Component):
        return arguments or {}
    if not hasattr(obj, "_modules"):
        return None
    cls = type(obj)
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    if not parameters or cls.__init__.__qualname__ == "Module.__init__":
        return {}
    if not cls.__module__.startswith("torch.nn."):
        return None
    if cls.__name__ in ("Sequential", "ModuleList"):
        return {parameters[0].name: list(obj)}
    named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    found = {n: getattr(obj, n, inspect.Parameter.empty) for n in named if n not in ("device", "dtype")}
    if "bias" in found and not isinstance(found["bias"], bool):
        found["bias"] = found["bias"] is not None
    known = {name: value for name, value in found.items() if not name.startswith("_")}
    return None if inspect.Parameter.empty in known.values() else known


def component_line(part: Any) -> str:
    """Describe a component as in Python code; return ``str`` of anything else.

    Example:
        >>> from lebm.component import component_line
        >>> component_line({"class_path": "lebm.samplers.Langevin", "init_args": {"steps": 60}})
        'Langevin(steps=60)'
    """
    if not isinstance(part, Mapping) or "class_path" not in part:
        return str(part)
    arguments = dict(part.get("init_args") or {})
    listed = ", ".join(
        f"{name}={component_line(value)}" for name, value in arguments.items() if value is not None
    )
    return f"{part['class_path'].rpartition('.')[2]}({listed})"
