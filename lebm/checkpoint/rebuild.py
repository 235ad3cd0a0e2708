"""Models from untrusted descriptions and weights.

A description names classes by path. Nothing is imported for a path unless its module is in an allowed
package. The object must be a component or network whose class is defined in an allowed package.
"""

import contextlib
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from lebm.component import Component, DescriptionError, describe, public_path
from lebm.errors import UserError

ALLOWED = ("lebm", "torch.nn")
_REASON = "not_described"
_LOAD = (
    "build the model in Python, then model.load_state_dict(torch.load(FILE, weights_only=True)['state_dict'])"
)


def allowed(path: str, trust: Iterable[str] = ()) -> bool:
    """Return whether a dotted path is in ``lebm``, ``torch.nn`` or one of the packages in ``trust``."""
    return any(path == package or path.startswith(package + ".") for package in (*ALLOWED, *trust))


def resolve(path: str, trust: Iterable[str] = ()) -> type:
    """Return the class at a path, or at its current path if an older lebm wrote it.

    Raises:
        UserError: if the path is not allowed (then nothing has been imported) or does not lead to a class.
    """
    found = imported(path, trust)
    if not inspect.isclass(found) or not allowed(public_path(found), tuple(trust)):
        raise UserError(f"{path} is not a class of a trusted package")
    return found


def imported(path: str, trust: Iterable[str] = ()) -> Any:
    """Return the class or function at a path; ``None`` if its module does not define the name.

    Raises:
        UserError: if the path is not allowed (then nothing has been imported) or its module does not exist.
    """
    trust = tuple(trust)
    parts = path.split(".") if isinstance(path, str) else []
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise UserError(f"{path!r} is not a class path")
    if not allowed(path, trust):
        raise UserError(
            f"the class {path} is outside the trusted packages ({', '.join((*ALLOWED, *trust))}); to trust"
            f" it, add --trust {parts[0]}, or trust=['{parts[0]}'] in Python"
        )
    home, _, name = path.rpartition(".")
    problem = ""
    for place in (home, home.rpartition(".")[0]):
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            problem = problem or f"no module {error.name}; run lebm in its folder, or install it"
        except Exception as error:  # the user's own module may raise anything
            problem = problem or f"{place} raises {type(error).__name__}: {error}"
        else:
            if hasattr(module, name) and (place == home or name in getattr(module, "__all__", ())):
                return getattr(module, name)
        if not re.fullmatch(r"lebm\.\w+\.\w+", home):  # classes of lebm may have moved within their package
            break
    if problem:
        raise UserError(f"{path} is not a class that can be imported: {problem}")
    return None


def build(description: Any, expected: type, trust: Iterable[str] = (), where: str = "model") -> Any:
    """Instantiate ``{"class_path": ..., "init_args": {...}}`` and all nested descriptions.

    Args:
        description: a description as made by :func:`lebm.component.describe`.
        expected: the class the result must be an instance of.
        trust: further packages whose classes are accepted.
        where: name of the place, for messages.

    Raises:
        UserError: for anything not allowed, unknown or unsuitable, and for a constructor that fails.
    """
    if not _is_description(description):
        raise UserError(f"{where}: expected a class_path with init_args")
    return _part(description, (expected,), tuple(trust), where)


def _part(value: Any, expected: tuple[type, ...], trust: tuple[str, ...], where: str) -> Any:
    if isinstance(value, list | tuple):
        return [_part(item, expected, trust, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping) and not _is_description(value):
        return {key: _part(item, expected, trust, f"{where}.{key}") for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: a {type(value).__name__} is not a plain value")
    arguments = value.get("init_args") or {}
    if set(value) - {"class_path", "init_args"} or not isinstance(arguments, Mapping):
        raise UserError(f"{where}: expected a class_path with init_args")
    cls = resolve(value["class_path"], trust)
    if not issubclass(cls, expected):
        names = " or ".join(sorted(kind.__name__ for kind in expected))
        raise UserError(f"{where}: {value['class_path']} is not a subclass of {names}")
    if issubclass(cls, Component):
        arguments = cls.from_former(dict(arguments))
    parts = (Component, nn.Module)
    values = {name: _part(item, parts, trust, f"{where}.{name}") for name, item in arguments.items()}
    parameters = inspect.signature(cls).parameters
    listed = [name for name in parameters if parameters[name].kind is inspect.Parameter.VAR_POSITIONAL]
    first: list[Any] = []
    if listed and listed[0] in values:  # `*args` are one list
        before = list(parameters)[: list(parameters).index(listed[0])]
        first = [*(values.pop(name) for name in before), *values.pop(listed[0])]
    try:
        return cls(*first, **values)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{where}: {cls.__name__} cannot be built: {error}") from error


def filled(description: Any, expected: type, state: Mapping[str, Any], trust: Iterable[str] = ()) -> Any:
    """Return the model of a description with the stored weights ``state``.

    A model of classes of lebm is built without memory, and its weights are the stored tensors themselves. A
    class that the user trusts may read values in its constructor, so it is built as in a recipe.

    Raises:
        UserError: as :func:`build`, and for weights that do not fit.
    """
    if isinstance(description, Mapping) and _REASON in description:
        raise UserError(f"holds weights only, because {description[_REASON]}; {_LOAD}")
    ours = all(map(allowed, _paths(description)))
    with torch.device("meta") if ours else contextlib.nullcontext():
        model = build(description, expected, trust)
    kinds = {name: value.dtype for name, value in chain(model.named_parameters(), model.named_buffers())}
    state = {
        name: value.to(kinds[name]) if isinstance(value, Tensor) and name in kinds else value
        for name, value in uncompiled(state).items()
    }
    try:
        model.load_state_dict(state, assign=ours)
    except Exception as error:  # modules may read plain state of their own
        last = str(error).splitlines()[-1].strip()[:200]
        raise UserError(f"its weights do not fit the model it describes ({last})") from error
    return model


def uncompiled(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return weights with their names in a model without ``torch.compile`` wrappers."""
    return {name.replace("_orig_mod.", ""): value for name, value in state.items()}


def tried(model: nn.Module) -> tuple[Any, str]:
    """Return the description of a model for checkpoints, or why there is none, and a sentence for the user.
    The sentence is empty if every program can open the checkpoints.
    """
    try:
        found = describe(model)
        packages = {path.partition(".")[0] for path in _paths(found)}
        rebuilt = filled(found, type(model), model.state_dict(), packages)
        if _layers(rebuilt) != _layers(model):  # a module was changed after construction
            raise UserError("a module differs from the arguments of its constructor")
    except (DescriptionError, UserError) as error:
        sentence = f"the checkpoints of this model hold weights only, because {error}; to open one, {_LOAD}"
        return {_REASON: str(error)}, sentence
    if "__main__" not in packages:
        return found, ""
    return found, (
        "a class of this model is defined in a script or notebook, so only that program can open its"
        " checkpoints, by lebm.load(FILE, trust=['__main__']); a class in a module can be opened anywhere"
    )


def _layers(model: nn.Module) -> list[str]:
    """Return the innermost plain layers of a model with their arguments; a list counts as a tuple."""
    plain = [part for part in model.modules() if not (list(part.children()) or isinstance(part, Component))]
    return [repr(part).replace("[", "(").replace("]", ")") for part in plain]


def _paths(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if _is_description(value):
            yield str(value["class_path"])
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _paths(item)


def _is_description(value: Any) -> bool:
    return isinstance(value, Mapping) and "class_path" in value
