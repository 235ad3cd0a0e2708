"""Layers and small networks shared by several models."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, pixel_shuffle

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "leaky_relu_0.01": nn.LeakyReLU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
_INITIALIZED = {"default": (), "xavier_conv": _CONVOLUTIONS, "xavier": (*_CONVOLUTIONS, nn.Linear)}


def activation_layer(name: str, inplace: bool = False) -> nn.Module:
    """Return the activation with the given name; if ``inplace``, (leaky) ReLU overwrites its input."""
    check_choice("activation", name, _ACTIVATIONS)
    layer = _ACTIVATIONS[name]()
    if inplace and isinstance(layer, nn.LeakyReLU | nn.ReLU):
        layer.inplace = True
    return layer


def initialize(network: nn.Module, name: str, random_scales: bool = False) -> None:
    """Set the initial weights of a network without spectral norm, layer by layer in their order.

    Args:
        network: the network; its biases keep the default of PyTorch.
        name: ``"default"`` changes nothing and draws nothing; ``"xavier_conv"`` draws the weights of all
            convolutions again, Xavier-normal; ``"xavier"`` also draws the weights of the linear layers.
        random_scales: whether scales of batch and group norms are drawn from N(0, 1).

    Raises:
        ValueError: for an unknown name.
    """
    check_choice("initialization", name, _INITIALIZED)
    for layer in network.modules():
        if isinstance(layer, _INITIALIZED[name]):
            nn.init.xavier_normal_(layer.get_parameter("weight"))
        elif random_scales and isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.normal_(layer.weight)


def mlp(
    widths: Sequence[int], name: str, output_bias: bool = True, spectral_norm: bool = False
) -> nn.Sequential:
    """Return linear layers of the given widths with activations between them, see ``MLPEnergy``.

    Raises:
        ValueError: for fewer than two widths, a width below 1 or an unknown activation.
    """
    if len(widths) < 2 or any(width < 1 for width in widths):
        raise ValueError(f"a network needs an input and an output width, all at least 1, not {list(widths)}")
    net, last = nn.Sequential(), len(widths) - 2
    for position, (before, after) in enumerate(pairwise(widths)):
        linear: nn.Module = nn.Linear(before, after, bias=output_bias or position < last)
        net.append(torch.nn.utils.parametrizations.spectral_norm(linear) if spectral_norm else linear)
        if position < last:
            net.append(activation_layer(name))
    return net


def output_layer(name: str) -> nn.Module:
    """Return the last layer of a generator: ``"tanh"`` for images in [-1, 1], or ``"linear"``.

    Raises:
        ValueError: for an unknown name.
    """
    check_choice("output", name, ("tanh", "linear"))
    return nn.Tanh() if name == "tanh" else nn.Identity()


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise a ``ValueError`` that lists the choices if the argument ``name`` is not one of them."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def check_sizes(takes: str, size: int | None, has: str, other: int) -> None:
    """Raise a ``ValueError`` if two parts disagree on the latent size and the size of the first is known.

    ``takes`` and ``has`` are their names with a verb: ``"the energy takes"`` and ``"the base has"``.
    """
    if size not in (None, other):
        raise ValueError(f"{takes} {size} latent coordinates but {has} {other}")


def check_square(
    name: str,
    shape: Sequence[int],
    channels: Sequence[int],
    latent_dim: int,
    end: str,
    size: int,
    factors: Sequence[int] = (1, 2),
) -> int:
    """Check the sizes of a convolutional network on square images.

    ``shape`` is the argument ``name``, and ``size``, the smallest height and width, the argument ``end``.
    Every layer after the first doubles ``size``. The result is the factor from there to the image.

    Raises:
        ValueError: if the factor is not one of ``factors``, or a size cannot be.
    """
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ValueError(f"{name} must be channels and two equal sizes, like [3, 32, 32], not {list(shape)}")
    if not channels or min(shape[0], latent_dim, size, *channels) < 1:
        raise ValueError(
            f"latent_dim {latent_dim}, {end} {size}, channels {list(channels)}: all must be at least 1 and"
            " channels must not be empty"
        )
    reached = size * 2 ** (len(channels) - 1)
    fitting = [factor * reached for factor in factors]
    if shape[1] not in fitting:
        raise ValueError(
            f"{len(channels)} channels with {end} {size} fit images of {' or '.join(map(str, fitting))} px,"
            f" but {name} has {shape[1]}: change {end} or the number of channels"
        )
    return shape[1] // reached


class FirstConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution (stride 1, no padding) of a 1x1 image, computed as a matrix product.

    It has the parameters and results of ``nn.ConvTranspose2d(latent_dim, channels, size)``.

    Shapes: ``(B, latent_dim) -> (B, channels, size, size)``, in channels-last memory.
    """

    bias: Tensor

    def forward(self, z: Tensor, output_size: list[int] | None = None) -> Tensor:
        weight = self.weight.permute(0, 2, 3, 1)
        bias = self.bias.repeat(weight.shape[1] * weight.shape[2])
        flat = torch.addmm(bias, z, weight.reshape(weight.shape[0], -1))
        return flat.unflatten(1, weight.shape[1:]).permute(0, 3, 1, 2)


class ThinConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution to few channels that doubles the size (kernel 4, stride 2, padding 1).

    It has the parameters and results of ``nn.ConvTranspose2d(channels, out_channels, 4, 2, 1)``. The four
    pixels of a 2x2 output block depend on the same 3x3 inputs, so a 3x3 convolution to four times the
    channels with a pixel shuffle gives all four, which is faster for few output channels.

    Shapes: ``(B, channels, H, W) -> (B, out_channels, 2 H, 2 W)``.
    """

    bias: Tensor

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels, out_channels, 4, 2, 1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        # Along one axis, the taps (w0 w1 w2 w3) act as (w3 w1 0) on even output pixels
        # and as (0 w2 w0) on odd output pixels.
        taps = pad(self.weight, (1, 1, 1, 1)).unflatten(3, (3, 2)).unflatten(2, (3, 2)).flip(2, 4)
        kernel = taps.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)
        return pixel_shuffle(conv2d(x, kernel, self.bias.repeat_interleave(4), padding=1), 2)
