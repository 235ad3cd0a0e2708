"""The released networks, chains and updates, written anew from their equations in plain torch.

A function takes a copy of our network for its tensors only, and computes with them what the release computes.
So a difference between its result and ours is a difference between the release and lebm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Normals = Sequence[Tensor]
"""Standard normals of a chain, one tensor per step."""


def tensors(network: nn.Module) -> list[nn.Module]:
    """The layers of a network that have a weight, in order."""
    return [
        layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
    ]


def leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, 0.2)


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    return functional.linear(x, layer.weight, layer.bias)


def keep(layer: nn.Module, x: Tensor) -> Tensor:
    """A transposed convolution 3/1/1. A convolution with the mirrored kernel is the same function."""
    return functional.conv_transpose2d(x, layer.weight.transpose(0, 1).flip(2, 3), None, 1, 1)


def up(layer: nn.Module, x: Tensor) -> Tensor:
    return functional.conv_transpose2d(x, layer.weight, layer.bias, 2, 1)


# Latent-space EBM (Pang et al. 2020), and the bottom layer of the conditional hierarchy (CVPR 2023)


def transposed(network: nn.Module, z: Tensor, last: tuple[int, int]) -> Tensor:
    """Transposed convolutions of the whole latent, then of kernel 4; ``last`` is (stride, padding)."""
    first, *middle, end = tensors(network)
    h = leaky(functional.conv_transpose2d(z[:, :, None, None], first.weight, first.bias))
    for layer in middle:
        h = leaky(up(layer, h))
    return torch.tanh(functional.conv_transpose2d(h, end.weight, end.bias, *last))


def perceptron(layers: Sequence[nn.Module], z: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    """The energy, or the network of a Gaussian: linear layers with an activation between them."""
    for layer in layers[:-1]:
        z = act(linear(layer, z))
    return linear(layers[-1], z)


# Ladders (Cui et al., ICCV 2023)


def ladder_of_ten(generator: nn.Module, z: Sequence[Tensor]) -> Tensor:
    """Five layers, merged by concatenation; every layer but the last has an activation."""
    one, two, three = tensors(generator.nets[4])
    h = leaky(linear(three, leaky(linear(two, leaky(linear(one, z[4]))))))
    h = h.unflatten(1, (-1, 2, 2))
    for level in (3, 2, 1, 0):
        own = leaky(linear(tensors(generator.projections[level])[0], z[level]))
        own = own.unflatten(1, (-1, *h.shape[2:]))
        layers = tensors(generator.nets[level])
        h = leaky(keep(layers[0], torch.cat([own, h], dim=1)))
        h = leaky(keep(layers[2], leaky(up(layers[1], h))))
    return torch.tanh(keep(layers[3], h))


def ladder_of_four(generator: nn.Module, z: Sequence[Tensor]) -> Tensor:
    """Four layers, merged by addition; neither summand has an activation."""
    one, two, three = tensors(generator.nets[3])
    h = linear(three, leaky(linear(two, leaky(linear(one, z[3])))))
    h = h + linear(tensors(generator.projections[2])[0], z[2])
    first, *layers = tensors(generator.nets[2])
    h = leaky(linear(first, h)).unflatten(1, (-1, 4, 4))
    for level in (2, 1, 0):
        if level < 2:
            layers = tensors(generator.nets[level])
            own = linear(tensors(generator.projections[level])[0], z[level])
            h = h + own.unflatten(1, (-1, *h.shape[2:]))
        h = keep(layers[1], leaky(up(layers[0], h)))
    return torch.tanh(h)


def bottom_up(encoder: nn.Module, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Means and log-variances per layer, bottom first; each read beside the trunk, slope .01 as in torch."""

    def block(network: nn.Module, h: Tensor) -> Tensor:
        for layer in tensors(network):
            if isinstance(layer, nn.Linear):
                h = functional.leaky_relu(linear(layer, h.flatten(1)))
            else:
                stride = 2 if layer.weight.shape[2] == 4 else 1
                h = functional.leaky_relu(functional.conv2d(h, layer.weight, None, stride, 1))
        return h

    means, log_variances, h = [], [], x
    for level, head in enumerate(encoder.heads):
        beside = encoder.branches[level] if level < len(encoder.branches) else encoder.trunk[level]
        seen = block(beside, h).flatten(1)
        size = head.weight.shape[0] // 2
        means.append(functional.linear(seen, head.weight[:size], head.bias[:size]))
        log_variances.append(functional.linear(seen, head.weight[size:], head.bias[size:]))
        h = block(encoder.trunk[level], h)
    return means, log_variances


def gaussian_nll(z: Tensor, mean: Tensor, log_variance: Tensor, added: float) -> Tensor:
    """Negative log-density without its constant, ``(B,)``; ``added`` to the variance, 1e-6 as released."""
    return 0.5 * (log_variance + (z - mean) ** 2 / (added + log_variance.exp())).sum(dim=1)


# Spectral norm


def normed(layer: nn.Module, iterate: bool = False) -> Tensor:
    """The weight over its largest singular value, at the present vectors or one power iteration later."""
    parametrization = layer.parametrizations.weight
    weight = parametrization.original
    matrix, u, v = weight.flatten(1), parametrization[0]._u, parametrization[0]._v
    if iterate:
        with torch.no_grad():
            u = functional.normalize(matrix @ v, dim=0)
            v = functional.normalize(matrix.T @ u, dim=0)
    return weight / (u @ matrix @ v)


def normed_perceptron(layers: Sequence[nn.Module], z: Tensor, iterate: bool = False) -> Tensor:
    for layer in layers[:-1]:
        z = leaky(functional.linear(z, normed(layer, iterate), layer.bias))
    return functional.linear(z, normed(layers[-1], iterate)).squeeze(1)


# Dual-MCMC teaching (Cui and Han, NeurIPS 2023)


def residual_generator(generator: nn.Module, z: Tensor) -> Tensor:
    """Batch norm on the statistics of the batch; the shortcut is interpolated before its convolution."""

    def norm(layer: nn.Module, h: Tensor) -> Tensor:
        return functional.relu(functional.batch_norm(h, None, None, layer.weight, layer.bias, training=True))

    def double(h: Tensor) -> Tensor:
        return functional.interpolate(h, scale_factor=2, mode="bilinear", align_corners=True)

    h = linear(generator.first, z).unflatten(1, (-1, 4, 4))
    for block in generator.blocks:
        main = functional.conv2d(double(norm(block.norm_one, h)), block.one.weight, block.one.bias, padding=1)
        main = functional.conv2d(norm(block.norm_two, main), block.two.weight, block.two.bias, padding=1)
        h = main + functional.conv2d(double(h), block.shortcut.weight, block.shortcut.bias)
    return torch.tanh(
        functional.conv2d(norm(generator.norm, h), generator.last.weight, generator.last.bias, padding=1)
    )


def residual_energy(energy: nn.Module, x: Tensor, iterate: bool = False) -> Tensor:
    """Spectral norm on every layer, no biases. The first block pools before its shortcut."""
    h = x
    for number, block in enumerate(energy.blocks):
        main = functional.relu(h) if number else h
        main = functional.relu(functional.conv2d(main, normed(block.one, iterate), padding=1))
        main = functional.conv2d(main, normed(block.two, iterate), padding=1)
        has_shortcut = isinstance(block.shortcut, nn.Conv2d)
        side = functional.conv2d(h, normed(block.shortcut, iterate)) if has_shortcut else h
        h = functional.avg_pool2d(main, 2) + functional.avg_pool2d(side, 2) if block.halves else main + side
    h = functional.relu(h)
    return functional.linear(
        functional.avg_pool2d(h, h.shape[2]).flatten(1), normed(energy.output, iterate)
    ).squeeze(1)


def convolutional_encoder(encoder: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """No biases in the body; two heads with biases."""
    for layer in tensors(encoder.net):
        stride = 2 if layer.weight.shape[2] == 4 else 1
        x = leaky(functional.conv2d(x, layer.weight, None, stride, 1))
    heads = (encoder.mean, encoder.log_variance)
    mean, log_variance = (functional.conv2d(x, head.weight, head.bias).flatten(1) for head in heads)
    return mean, log_variance


# Chains


def langevin(
    potential: Callable[[Tensor], Tensor],
    start: Tensor,
    normals: Normals,
    step: float,
    noise: float | None = None,
) -> Tensor:
    """``z - step^2 / 2 * slope + noise * normal`` for a potential summed over the batch."""
    z = start
    for normal in normals:
        z = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(potential(z), z)
        z = z - 0.5 * step**2 * slope + (step if noise is None else noise) * normal
    return z.detach()
