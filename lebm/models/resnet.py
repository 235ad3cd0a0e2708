"""Residual networks on images: an energy with spectral norm, and a generator."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate
from torch.nn.utils.parametrizations import spectral_norm as _spectral_norm

from lebm.models.energies import Energy
from lebm.models.generators import Generator
from lebm.models.layers import activation_layer, check_choice, check_square, initialize, output_layer


class ResNetEnergy(Energy):
    """A residual energy on images with spectral norm (Cui and Han, NeurIPS 2023, released networks).

    A block has two 3x3 convolutions with ReLUs between them, and halves the size by average pooling or keeps
    it. The shortcut is a 1x1 convolution where size or channels change. A ReLU, the mean over pixels and a
    linear layer follow the blocks. No layer has a bias. The recipes of ``dual_mcmc`` have the released sizes.

    Spectral norm bounds the Lipschitz constant of every layer and so the slope of the energy; without it the
    released training diverges. Each forward pass in training mode does one power iteration, so call the
    energy once per step, on positives and negatives together.

    Args:
        in_shape: channels, height and width of an image.
        channels: output channels of every block.
        downsample: whether each block halves the size; by default all blocks do.
        activation: name of an activation, see :class:`~lebm.models.MLPEnergy`.
        spectral_norm: whether every layer has spectral norm.
        initialization: ``"xavier"``, Xavier-normal weights; ``"xavier_conv"``, Xavier-normal weights of
            convolutions only (released); or ``"default"`` (PyTorch's).

    Raises:
        ValueError: if no pixel would be left, if the lists differ in length, for a width below 1, or for an
            unknown activation.

    Example:
        >>> import torch
        >>> from lebm.models import ResNetEnergy
        >>> energy = ResNetEnergy(in_shape=[1, 28, 28], channels=[8, 8, 8], downsample=[True, True, False])
        >>> energy(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5])
    """

    former = {"bias": False}

    def __init__(
        self,
        in_shape: Sequence[int],
        channels: Sequence[int],
        downsample: Sequence[bool] | None = None,
        activation: str = "relu",
        spectral_norm: bool = True,
        initialization: str = "xavier",
    ) -> None:
        super().__init__()
        halves = [True] * len(channels) if downsample is None else list(downsample)
        if len(in_shape) != 3 or not channels or len(halves) != len(channels):
            raise ValueError(
                f"in_shape {list(in_shape)} must be channels, height and width, and channels {list(channels)}"
                f" and downsample {list(halves)} must have the same length, at least 1"
            )
        if min(in_shape[1:]) < 2 ** sum(halves):
            raise ValueError(f"{sum(halves)} halvings leave nothing of {in_shape[1]} x {in_shape[2]} pixels")
        self.in_shape = tuple(in_shape)
        self.blocks = nn.Sequential()
        for (before, after), half in zip(pairwise([in_shape[0], *channels]), halves, strict=True):
            self.blocks.append(DownBlock(before, after, half, activation, first=len(self.blocks) == 0))
        self.activation = activation_layer(activation)
        self.output = nn.Linear(channels[-1], 1, bias=False)
        initialize(self, initialization)
        if spectral_norm:
            for layer in list(self.modules()):
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    _spectral_norm(layer)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.blocks(x.contiguous(memory_format=torch.channels_last))
        return self.output(self.activation(seen).mean(dim=(2, 3))).squeeze(-1)


class DownBlock(nn.Module):
    """Two convolutions and a shortcut; the ``first`` block begins without ReLU."""

    def __init__(self, before: int, after: int, halves: bool, activation: str, first: bool) -> None:
        super().__init__()
        self.halves = halves
        self.before = nn.Identity() if first else activation_layer(activation)
        self.one = nn.Conv2d(before, after, 3, 1, 1, bias=False)
        self.between = activation_layer(activation, inplace=True)
        self.two = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        changes = halves or before != after
        self.shortcut = nn.Conv2d(before, after, 1, bias=False) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        main = self.two(self.between(self.one(self.before(x))))
        if not self.halves:
            return main + self.shortcut(x)
        # Pooling and a 1x1 convolution commute, and the convolution costs a quarter after pooling.
        return avg_pool2d(main, 2) + self.shortcut(avg_pool2d(x, 2))


class ResNetGenerator(Generator):
    """A residual generator (Cui and Han, NeurIPS 2023, released networks).

    A linear layer gives a ``start`` x ``start`` image of ``channels[0]`` channels. Each block doubles the
    size by bilinear interpolation with aligned corners. Norm, ReLU and a 3x3 convolution with tanh follow.
    The recipes of ``dual_mcmc`` have the released sizes.

    Args:
        latent_dim: number of latent coordinates, at least 1.
        out_shape: channels, height and width of an image; height and width must be equal.
        channels: channels of the first image and of the output of every block.
        start: height and width of the first image.
        norm: ``"batch"`` (released), ``"group"``, with at most 16 groups, or ``"none"``. With ``"group"`` and
            ``"none"`` the output for a sample does not depend on the other samples.
        random_scales: whether the initial scales of the norms are drawn from N(0, 1), as released, instead of
            being 1.
        output: ``"tanh"`` for images in [-1, 1], or ``"linear"``.
        initialization: ``"xavier"``, ``"xavier_conv"`` or ``"default"``, see :class:`ResNetEnergy`.

    Raises:
        ValueError: if the blocks do not end at the size of the image, for a width below 1, or for an unknown
            name.

    Example:
        >>> import torch
        >>> from lebm.models import ResNetGenerator
        >>> generator = ResNetGenerator(latent_dim=16, out_shape=[1, 28, 28], channels=[8, 8, 8], start=7)
        >>> generator(torch.zeros(5, 16)).shape
        torch.Size([5, 1, 28, 28])
    """

    former = {"groups": 16}

    def __init__(
        self,
        latent_dim: int,
        out_shape: Sequence[int],
        channels: Sequence[int],
        start: int = 4,
        norm: str = "batch",
        random_scales: bool = False,
        output: str = "tanh",
        initialization: str = "xavier",
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.out_shape = tuple(out_shape)
        check_choice("norm", norm, ("batch", "group", "none"))
        check_square("out_shape", out_shape, channels, latent_dim, "start", start, factors=(1,))
        self.start = start
        self.first = nn.Linear(latent_dim, channels[0] * start**2)
        self.blocks = nn.Sequential(*(UpBlock(before, after, norm) for before, after in pairwise(channels)))
        self.norm = _norm(norm, channels[-1])
        self.last = nn.Conv2d(channels[-1], self.out_shape[0], 3, 1, 1)
        self.tanh = output_layer(output)
        initialize(self, initialization, random_scales)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, z: Tensor) -> Tensor:
        image = self.first(z).unflatten(1, (-1, self.start, self.start))
        seen = self.blocks(image.contiguous(memory_format=torch.channels_last))
        return self.tanh(self.last(self.norm(seen).relu()))


class UpBlock(nn.Module):
    """Norm, ReLU, upsampling, convolution, norm, ReLU and convolution, with a shortcut."""

    def __init__(self, before: int, after: int, norm: str) -> None:
        super().__init__()
        self.norm_one = _norm(norm, before)
        self.one = nn.Conv2d(before, after, 3, 1, 1)
        self.norm_two = _norm(norm, after)
        self.two = nn.Conv2d(after, after, 3, 1, 1)
        self.shortcut = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        main = self.one(_double(self.norm_one(x).relu()))
        main = self.two(self.norm_two(main).relu())
        # Interpolation and a 1x1 convolution commute, because the weights of the interpolation add up to 1;
        # the convolution is cheaper on the smaller image.
        return main + _double(self.shortcut(x))


def _double(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def _norm(name: str, channels: int) -> nn.Module:
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "none":
        return nn.Identity()
    return nn.GroupNorm(max(count for count in range(1, 17) if channels % count == 0), channels)
