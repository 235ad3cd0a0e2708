"""A flat latent seen as layers, and energies on such layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from lebm.models.energies import Energy, MLPEnergy
from lebm.models.layers import activation as _activation

__all__ = ["ConcatenatedEnergy", "ConvEnergy", "LatentLayout", "LayerEnergies"]

LayerShape = int | Sequence[int]


class LatentLayout:
    """Views of one flat latent ``(B, d)`` as layers, bottom first: layer 0 is nearest to the data.

    Args:
        shapes: size of each layer, or its shape such as ``[20, 8, 8]``.

    Attributes:
        shapes: one tuple a layer.
        sizes: numbers of coordinates of the layers.
        latent_dim: their sum.

    Raises:
        ValueError: for no layer, or one without coordinates.
    """

    def __init__(self, shapes: Sequence[LayerShape]) -> None:
        self.shapes = [(shape,) if isinstance(shape, int) else tuple(shape) for shape in shapes]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        if not self.sizes or any(min(shape, default=0) < 1 for shape in self.shapes):
            raise ValueError(
                "a layered latent needs at least one layer, and every layer at least one coordinate, not"
                f" {list(shapes)}"
            )
        self.latent_dim = sum(self.sizes)
        self.slices = [slice(start, end) for start, end in pairwise(accumulate(self.sizes, initial=0))]

    def __len__(self) -> int:
        return len(self.sizes)

    def split(self, z: Tensor) -> list[Tensor]:
        """The layers of ``(B, latent_dim)`` as views ``(B, *shape)``."""
        return [
            part.unflatten(1, shape)
            for part, shape in zip(z.split(self.sizes, dim=1), self.shapes, strict=True)
        ]

    def join(self, layers: Sequence[Tensor]) -> Tensor:
        """Layers ``(B, *shape)`` as one flat latent."""
        return torch.cat([layer.flatten(1) for layer in layers], dim=1)

    def sums(self, values: Tensor) -> Tensor:
        """Sums over the coordinates of each layer: ``(B, L)`` of ``(B, latent_dim)``."""
        return torch.stack([part.sum(dim=1) for part in values.split(self.sizes, dim=1)], dim=1)

    def mask(self, layers: Iterable[int], device: torch.device | str = "cpu") -> Tensor:
        """Which coordinates belong to the given layers: ``(latent_dim,)`` of ``bool``.

        Raises:
            ValueError: for a layer that does not exist.
        """
        mask = torch.zeros(self.latent_dim, dtype=torch.bool, device=device)
        for layer in layers:
            if not 0 <= layer < len(self):
                raise ValueError(
                    f"there is no layer {layer}; the layers are 0 (nearest to the data) to {len(self) - 1}"
                )
            mask[self.slices[layer]] = True
        return mask


class ConcatenatedEnergy(MLPEnergy):
    """One fully connected energy on all layers together, which couples them (Cui et al., ICCV 2023, released
    networks).

    Args:
        latent_dims: sizes of the layers, bottom first.
        hidden: widths of the hidden layers.
        activation: see :class:`~lebm.models.MLPEnergy`.
        spectral_norm: bound every layer's Lipschitz constant by 1, as released: it keeps an inference
            network, which follows the energy's slope, from running away.

    Shapes: ``(B, sum(latent_dims)) -> (B,)``.
    """

    def __init__(
        self,
        latent_dims: Sequence[int],
        hidden: Sequence[int] = (100, 100),
        activation: str = "leaky_relu",
        spectral_norm: bool = True,
    ) -> None:
        super().__init__(
            LatentLayout(latent_dims).latent_dim, hidden, activation, spectral_norm=spectral_norm
        )


class LayerEnergies(Energy):
    r"""A sum of energies, one a layer: :math:`E(z) = \sum_i E_i(z_i)` (Cui et al., CVPR 2023).

    Args:
        energies: bottom layer first, each with its ``latent_dim`` (a :class:`ConvEnergy` has one too).

    Shapes: ``(B, sum of the latent_dims) -> (B,)``.

    Raises:
        ValueError: for no energy, or one that does not know its size.
    """

    def __init__(self, energies: Sequence[Energy]) -> None:
        super().__init__()
        sizes = [energy.latent_dim for energy in energies]
        if any(size is None for size in sizes):
            raise ValueError("every energy of a layer must know its latent_dim")
        self.layout = LatentLayout([size for size in sizes if size is not None])
        self.latent_dim = self.layout.latent_dim
        self.energies = nn.ModuleList(energies)

    def forward(self, z: Tensor) -> Tensor:
        parts = [energy(part) for energy, part in zip(self.energies, self.layout.split(z), strict=True)]
        return torch.stack(parts).sum(dim=0)


class ConvEnergy(Energy):
    """An energy on a convolutional group of latents (CVPR 2023, released networks).

    Layers that halve the size (kernel 4, stride 2) down to 4 x 4, then as many fully connected ones, at least
    one.

    Args:
        shape: channels, height and width of the group; square, a power of two, at least 4.
        channels: of the convolutions; 64 as released.
        hidden: width of the fully connected layers; 200 as released.

    Shapes: ``(B, C * H * W) -> (B,)``.

    Raises:
        ValueError: for another shape.
    """

    def __init__(self, shape: Sequence[int], channels: int = 64, hidden: int = 200) -> None:
        super().__init__()
        if len(shape) != 3 or shape[1] != shape[2] or shape[1] < 4 or shape[1] & (shape[1] - 1):
            raise ValueError(
                "a convolutional energy needs a shape (C, H, H) with H a power of two of at least 4, not"
                f" {list(shape)}"
            )
        halvings = int(math.log2(shape[1])) - 2
        self.latent_dim = math.prod(shape)
        self.net = nn.Sequential(nn.Unflatten(1, tuple(shape)))
        for before in [shape[0], *[channels] * (halvings - 1)][:halvings]:
            self.net.extend([nn.Conv2d(before, channels, 4, 2, 1), _activation("leaky_relu")])
        self.net.append(nn.Flatten())
        width = 16 * (channels if halvings else shape[0])
        for _ in range(max(1, halvings)):
            self.net.extend([nn.Linear(width, hidden), _activation("leaky_relu")])
            width = hidden
        self.net.append(nn.Linear(width, 1, bias=False))

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z).squeeze(-1)
