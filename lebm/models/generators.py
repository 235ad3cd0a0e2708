"""Generators: networks from a flat latent ``(B, d)`` to data."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lebm.component import Component
from lebm.models.layers import (
    FirstConvTranspose2d,
    ThinConvTranspose2d,
    activation_layer,
    check_square,
    initialize,
    mlp,
    output_layer,
)


class Generator(nn.Module, Component):
    """Base class of the generators: ``generator(z: (B, latent_dim)) -> (B, *out_shape)``.

    Images are in [-1, 1]. A subclass sets ``latent_dim``, the number of latent coordinates, and
    ``out_shape``, the shape of one observation.

    Example:
        >>> import torch
        >>> from lebm.models import Generator
        >>> class Doubling(Generator):
        ...     latent_dim, out_shape = 3, (3,)
        ...     def forward(self, z):
        ...         return 2 * z
        >>> Doubling()(torch.ones(1, 3))
        tensor([[2., 2., 2.]])
    """

    latent_dim: int
    out_shape: tuple[int, ...]


class MLPGenerator(Generator):
    """A fully connected generator.

    On a CPU one chain step is about 26 times cheaper than with a small convolutional generator at 28 px.

    Args:
        latent_dim: number of latent coordinates, at least 1.
        out_shape: shape of one observation, for example ``[1, 28, 28]``.
        hidden: widths of the hidden layers.
        activation: name of an activation, see :class:`~lebm.models.MLPEnergy`.
        output: ``"tanh"`` for images in [-1, 1], or ``"linear"``.

    Raises:
        ValueError: for a width below 1 or an unknown name.

    Example:
        >>> import torch
        >>> from lebm.models import MLPGenerator
        >>> generator = MLPGenerator(latent_dim=16, out_shape=[1, 28, 28], hidden=[64])
        >>> generator(torch.zeros(5, 16)).shape
        torch.Size([5, 1, 28, 28])
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
        self.net.append(output_layer(output))

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z).unflatten(1, self.out_shape)


class ConvGenerator(Generator):
    """A transposed-convolution generator without normalisation.

    The first layer turns the latent into a ``start`` x ``start`` image. Each further layer doubles the size
    (kernel 4, stride 2). The last layer gives the channels of the image: it doubles the size once more, or
    keeps it (kernel 3) if the image has its size already. These are the networks of Pang et al. (2020,
    supplement) and of their successors; the recipes of ``latent_mle`` have the sizes for each data set.

    Parameters have the layout of a plain ``nn.Sequential`` of ``nn.ConvTranspose2d``, and results agree with
    it up to rounding. Only the computation differs: the first layer is a matrix product, a last layer that
    doubles the size is a convolution with a pixel shuffle, and memory is channels-last.

    Args:
        latent_dim: number of latent coordinates, at least 1.
        out_shape: channels, height and width of an image; height and width must be equal.
        channels: output channels of every layer but the last.
        start: height and width after the first layer.
        activation: name of an activation, see :class:`~lebm.models.MLPEnergy`.
        output: ``"tanh"`` for images in [-1, 1], or ``"linear"``.
        initialization: ``"xavier_conv"``, Xavier-normal weights of the convolutions (released, Pang et al.
            2020), or ``"default"``, PyTorch's (released, Cui et al. CVPR 2023).

    Raises:
        ValueError: if the layers do not end at the size of the image, for a width below 1, or for an unknown
            name.

    Example:
        >>> import torch
        >>> from lebm.models import ConvGenerator
        >>> generator = ConvGenerator(latent_dim=16, out_shape=[3, 32, 32], channels=[32, 16, 8], start=4)
        >>> generator(torch.zeros(5, 16)).shape
        torch.Size([5, 3, 32, 32])
    """

    def __init__(
        self,
        latent_dim: int,
        out_shape: Sequence[int],
        channels: Sequence[int],
        start: int = 4,
        activation: str = "leaky_relu",
        output: str = "tanh",
        initialization: str = "xavier_conv",
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.out_shape = tuple(out_shape)
        doubling = check_square("out_shape", out_shape, channels, latent_dim, "start", start) == 2
        # The first activation acts on a view, where an in-place operation costs autograd more than it saves.
        self.net = nn.Sequential(
            FirstConvTranspose2d(latent_dim, channels[0], start), activation_layer(activation, inplace=False)
        )
        for before, after in pairwise(channels):
            self.net.append(nn.ConvTranspose2d(before, after, 4, 2, 1))
            self.net.append(activation_layer(activation, inplace=True))
        ends = channels[-1], self.out_shape[0]
        last = ThinConvTranspose2d(*ends) if doubling else nn.ConvTranspose2d(*ends, 3, 1, 1)
        self.net.extend([last, output_layer(output)])
        initialize(self.net, initialization)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)


class IdentityGenerator(Generator):
    """The identity ``g(z) = z``, without parameters.

    The prior is then a density of the data themselves, blurred by the noise of the likelihood.

    Args:
        latent_dim: number of coordinates.

    Example:
        >>> import torch
        >>> from lebm.models import IdentityGenerator
        >>> generator = IdentityGenerator(latent_dim=2)
        >>> generator(torch.tensor([[0.5, -1.0]]))
        tensor([[ 0.5000, -1.0000]])
        >>> generator.out_shape
        (2,)
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.out_shape = (latent_dim,)

    def forward(self, z: Tensor) -> Tensor:
        return z
