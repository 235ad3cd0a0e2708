"""Small pieces that several networks share."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

__all__ = ["activation"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


def activation(name: str) -> nn.Module:
    """The activation of that name (leaky_relu has slope 0.2).

    Raises:
        ValueError: if there is none; the message lists the names.
    """
    if name not in _ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; choose one of {', '.join(sorted(_ACTIVATIONS))}")
    return _ACTIVATIONS[name]()
