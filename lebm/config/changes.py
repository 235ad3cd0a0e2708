"""Which settings of a network differ between a checkpoint and a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["changed_settings"]

_SHOWN = 3


def changed_settings(before: Any, now: Any, weight: str) -> list[str]:
    """What differs in the part of a model that a weight belongs to, at most three settings.

    Args:
        before: the description of the model in the checkpoint.
        now: the description of the model of the recipe.
        weight: name of the weight, such as ``likelihood.generator.net.0.weight``.

    Returns:
        For each setting its key and both values; empty if the descriptions agree or do not match.

    Example:
        >>> from lebm.config.changes import changed_settings
        >>> def model(size):
        ...     part = {"class_path": "MLPEnergy", "init_args": {"latent_dim": size, "hidden": [8]}}
        ...     return {"class_path": "LatentMLE", "init_args": {"energy": part}}
        >>> changed_settings(model(16), model(100), "energy.net.0.weight")
        ['model.init_args.energy.init_args.latent_dim is 16 there and 100 here']
    """
    key = "model"
    for name in weight.split("."):
        inner = [_arguments(part).get(name) for part in (before, now)]
        if not all(map(_arguments, inner)):
            break
        (before, now), key = inner, f"{key}.init_args.{name}"
    changed = list(_differences(before, now, key))[:_SHOWN]
    return [f"{where} is {old} there and {new} here" for where, old, new in changed]


def _arguments(part: Any) -> Mapping[str, Any]:
    arguments = part.get("init_args") if isinstance(part, Mapping) else None
    return arguments if isinstance(arguments, Mapping) else {}


def _differences(before: Any, now: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in before:
            if name in now:
                yield from _differences(before[name], now[name], f"{key}.{name}")
    elif before != now:
        yield key, before, now
