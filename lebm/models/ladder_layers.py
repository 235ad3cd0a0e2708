"""Stacks of layers written as words: this is how recipes describe ladders."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from lebm.models.layers import activation as _activation

__all__ = ["stack"]

NORMS = ("none", "group", "batch")


def stack(
    words: Sequence[str],
    shape: tuple[int, ...],
    activation: str,
    *,
    norm: str = "none",
    bias: bool = True,
    plain_end: bool = False,
) -> tuple[nn.Sequential, tuple[int, ...]]:
    """Build layers, and follow the shape of one sample through them.

    Args:
        words: one word per layer. ``"linear 400"`` takes the whole input; ``"linear 64x4x4"`` gives an image;
            ``"conv 64"`` keeps the size (kernel 3); ``"down 64"`` halves it (kernel 4); ``"up 64"`` doubles
            it (transposed, kernel 4).
        shape: shape of the input, ``(d,)`` or ``(C, H, W)``.
        activation: name of the activation after every layer.
        norm: ``"none"``, ``"group"`` or ``"batch"``, between a layer and its activation.
        bias: whether convolutions have biases; linear layers always have them.
        plain_end: whether the last layer has neither norm nor activation.

    Returns:
        The network, and the shape of its output.

    Raises:
        ValueError: if a word cannot be read or does not fit; the message names the word.
    """
    if not words:
        raise ValueError("a block needs at least one layer, for example 'linear 400'")
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}; choose one of {', '.join(NORMS)}")
    net = nn.Sequential()
    for position, word in enumerate(words):
        shape = _append(net, word, shape, bias)
        if plain_end and position == len(words) - 1:
            break
        net.extend(_norm(norm, shape))
        net.append(_activation(activation))
    return net, shape


def _append(net: nn.Sequential, word: str, shape: tuple[int, ...], bias: bool) -> tuple[int, ...]:
    """Add the layer of a word; return the shape after it."""
    kind, _, size = word.partition(" ")
    try:
        sizes = tuple(int(number) for number in size.split("x"))
    except ValueError:
        sizes = ()
    fits = len(sizes) in (1, 3) if kind == "linear" else len(sizes) == 1
    if kind not in ("linear", "conv", "down", "up") or not fits or min(sizes) < 1:
        raise ValueError(
            f"cannot read the layer {word!r}; write 'linear 400', 'linear 64x4x4', 'conv 64', 'down 64' or"
            " 'up 64'"
        )
    if kind == "linear":
        if len(shape) > 1:
            net.append(nn.Flatten())
        net.append(nn.Linear(math.prod(shape), math.prod(sizes)))
        if len(sizes) > 1:
            net.append(nn.Unflatten(1, sizes))
        return sizes
    if len(shape) != 3:
        raise ValueError(
            f"the layer {word!r} needs an image, but there are {shape[0]} numbers; put 'linear CxHxW'"
            " before it"
        )
    before, height, width = shape
    after = sizes[0]
    if kind == "conv":
        net.append(nn.Conv2d(before, after, 3, 1, 1, bias=bias))
        return after, height, width
    if kind == "up":
        net.append(nn.ConvTranspose2d(before, after, 4, 2, 1, bias=bias))
        return after, 2 * height, 2 * width
    if height % 2 or width % 2:
        raise ValueError(f"the layer {word!r} halves the size, but the image is {height} x {width}")
    net.append(nn.Conv2d(before, after, 4, 2, 1, bias=bias))
    return after, height // 2, width // 2


def _norm(name: str, shape: tuple[int, ...]) -> list[nn.Module]:
    channels = shape[0]
    if name == "group":
        return [nn.GroupNorm(math.gcd(8, channels), channels)]
    if name == "batch":
        return [nn.BatchNorm1d(channels) if len(shape) == 1 else nn.BatchNorm2d(channels)]
    return []
