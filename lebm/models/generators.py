"""Generators: networks from a flat latent ``(B, d)`` to data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lebm.component import Component
from lebm.models.layers import FirstConvTranspose2d, ThinConvTranspose2d, mlp
from lebm.models.layers import activation as _activation

__all__ = ["ConvGenerator", "Generator", "MLPGenerator"]


class Generator(nn.Module, Component):
    """Base of the generators: ``generator(z: (B, latent_dim)) -> (B, *out_shape)``, images in [-1, 1]."""

    latent_dim: int
    out_shape: tuple[int, ...]


class MLPGenerator(Generator):
    """A fully connected generator; on a CPU about 26 times cheaper a step than a small convolutional one at
    28 px.

    Args:
        latent_dim: number of latent coordinates, at least 1.
        out_shape: shape of one observation, for example ``[1, 28, 28]``.
        hidden: widths of the hidden layers.
        activation: ``"leaky_relu"`` (slope 0.2), ``"gelu"``, ``"relu"``, ``"silu"``, ``"softplus"`` or
            ``"tanh"``.
        output: ``"tanh"`` for images in [-1, 1], or ``"linear"``.

    Shapes: ``(B, latent_dim) -> (B, *out_shape)``.

    Raises:
        ValueError: for a width below 1 or an unknown name.
    """

    def __init__(
        self,
        latent_dim: int,
        out_shape: Sequence[int],
        hidden: Sequence[int] = (400, 400),
        activation: str = "leaky_relu",
        output: str = "tanh",
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.out_shape = tuple(out_shape)
        self.net = mlp([latent_dim, *hidden, math.prod(out_shape)], activation)
        self.net.extend(_output(output))

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z).unflatten(1, self.out_shape)


class ConvGenerator(Generator):
    """A transposed-convolution generator without normalisation (Pang et al. 2020, supplement, and its
    successors' variants).

    The first layer turns the latent into a ``start`` x ``start`` image, each further one doubles the size
    (kernel 4, stride 2), and the last, to the image's own channels, doubles it once more, or keeps it (kernel
    3) if it is there already. So::

        SVHN, 32 px             channels=[512, 256, 128], start=4
        CIFAR-10, 32 px         channels=[1024, 512, 256], start=8
        CelebA, 64 px           channels=[1024, 512, 256, 128], start=4
        CelebA, 128 px          channels=[2048, 1024, 512, 256, 128], start=4
        CelebA-HQ, 256 px       channels=[2048, 1024, 512, 512, 256, 128], start=4
        MNIST, 28 px            channels=[1024, 512, 256], start=7

    Parameters have the layout of a plain ``nn.Sequential`` of ``nn.ConvTranspose2d``, and results agree with
    it to rounding; the first and the last layer are only computed another way, and memory is channels-last.
    Weights start Xavier-normal, as in the released scripts.

    Args:
        latent_dim: number of latent coordinates, at least 1.
        out_shape: channels, height and width of an image; square.
        channels: output channels of every layer but the last.
        start: height and width after the first layer.
        activation: ``"leaky_relu"`` (slope 0.2), ``"gelu"``, ``"relu"``, ``"silu"``, ``"softplus"`` or
            ``"tanh"``.
        output: ``"tanh"`` for images in [-1, 1], or ``"linear"``.

    Shapes: ``(B, latent_dim) -> (B, *out_shape)``.

    Raises:
        ValueError: if the layers do not end at the image's size, for a width below 1 or an unknown name.
    """

    def __init__(
        self,
        latent_dim: int,
        out_shape: Sequence[int],
        channels: Sequence[int],
        start: int = 4,
        activation: str = "leaky_relu",
        output: str = "tanh",
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.out_shape = tuple(out_shape)
        _check_sizes(latent_dim, self.out_shape, channels, start)
        # The first activation acts on a view, where overwriting costs autograd more than it saves.
        self.net = nn.Sequential(
            FirstConvTranspose2d(latent_dim, channels[0], start), _activation(activation, inplace=False)
        )
        for before, after in pairwise(channels):
            self.net.extend(
                [nn.ConvTranspose2d(before, after, 4, 2, 1), _activation(activation, inplace=True)]
            )
        if start * 2 ** len(channels) == self.out_shape[1]:
            self.net.append(ThinConvTranspose2d(channels[-1], self.out_shape[0]))
        else:
            self.net.append(nn.ConvTranspose2d(channels[-1], self.out_shape[0], 3, 1, 1))
        self.net.extend(_output(output))
        for layer in self.net:
            if isinstance(layer, nn.ConvTranspose2d):
                nn.init.xavier_normal_(layer.weight)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)


def _check_sizes(latent_dim: int, out_shape: tuple[int, ...], channels: Sequence[int], start: int) -> None:
    if len(out_shape) != 3 or out_shape[1] != out_shape[2]:
        raise ValueError(
            f"out_shape must be channels and two equal sizes, for example [3, 32, 32], not {list(out_shape)}"
        )
    if not channels or min(latent_dim, start, out_shape[0], *channels) < 1:
        raise ValueError(
            f"latent_dim {latent_dim}, start {start}, channels {list(channels)}: all must be at least 1 and"
            " some channels given"
        )
    reached = start * 2 ** (len(channels) - 1)
    if out_shape[1] not in (reached, 2 * reached):
        raise ValueError(
            f"{len(channels)} layers from {start} x {start} reach {reached} px, and the last {reached} or"
            f" {2 * reached}, but out_shape asks for {out_shape[1]}: change start or the number of channels"
        )


def _output(name: str) -> list[nn.Module]:
    if name not in ("tanh", "linear"):
        raise ValueError(f"output must be 'tanh' or 'linear', not {name!r}")
    return [nn.Tanh()] if name == "tanh" else []
