"""Layers of a flat latent, and energies on such layers."""

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from lebm.models.energies import Energy, MLPEnergy
from lebm.models.layers import activation_layer, mlp

LayerShape = int | Sequence[int]


class LatentLayout:
    """A view of a flat latent ``(B, d)`` as layers, bottom first: layer 0 is nearest to the data.

    Args:
        shapes: size of each layer, or its shape such as ``[20, 8, 8]``.

    Attributes:
        shapes: one tuple per layer.
        sizes: number of coordinates of each layer.
        latent_dim: sum of the sizes.
        slices: coordinates of each layer in the flat latent.

    Raises:
        ValueError: without layers, or for a layer without coordinates.

    Example:
        >>> import torch
        >>> from lebm.models import LatentLayout
        >>> layout = LatentLayout([2, [3, 4, 4]])
        >>> [layer.shape for layer in layout.split(torch.zeros(5, layout.latent_dim))]
        [torch.Size([5, 2]), torch.Size([5, 3, 4, 4])]
        >>> layout.mask([0]).sum()
        tensor(2)
    """

    def __init__(self, shapes: Sequence[LayerShape]) -> None:
        self.shapes = [(shape,) if isinstance(shape, int) else tuple(shape) for shape in shapes]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        if not self.sizes or any(min(shape, default=0) < 1 for shape in self.shapes):
            raise ValueError(f"needs at least one layer, each of at least one number, not {list(shapes)}")
        self.latent_dim = sum(self.sizes)
        self.slices = [slice(start, end) for start, end in pairwise(accumulate(self.sizes, initial=0))]

    def __len__(self) -> int:
        return len(self.sizes)

    def split(self, z: Tensor) -> list[Tensor]:
        """Return the layers of a flat latent ``(B, latent_dim)``, as views ``(B, *shape)``."""
        parts = z.split(self.sizes, dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def join(self, layers: Sequence[Tensor]) -> Tensor:
        """Return the flat latent ``(B, latent_dim)`` of layers ``(B, *shape)``."""
        return torch.cat([layer.flatten(1) for layer in layers], dim=1)

    def sums(self, values: Tensor) -> Tensor:
        """Sum over the coordinates of each layer: ``(B, latent_dim) -> (B, L)``."""
        return torch.stack([part.sum(dim=1) for part in values.split(self.sizes, dim=1)], dim=1)

    def mask(self, layers: Iterable[int], device: torch.device | str = "cpu") -> Tensor:
        """Return a mask of the coordinates of the given layers, ``(latent_dim,)`` of ``bool``.

        Raises:
            ValueError: if a layer does not exist.
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
    """A fully connected energy that couples all layers (Cui et al., ICCV 2023, released networks).

    Args:
        latent_dims: sizes of the layers, bottom first.
        hidden: widths of the hidden layers.
        activation: name of an activation, see :class:`~lebm.models.MLPEnergy`.
        spectral_norm: whether the Lipschitz constant of every layer is bounded by 1, as released. The bound
            keeps an inference network, which follows the slope of the energy, from diverging.

    Raises:
        ValueError: without layers, for a width below 1 or an unknown activation.

    Example:
        >>> import torch
        >>> from lebm.models import ConcatenatedEnergy
        >>> energy = ConcatenatedEnergy(latent_dims=[2, 3])
        >>> energy(torch.zeros(4, 5)).shape
        torch.Size([4])
    """

    def __init__(
        self,
        latent_dims: Sequence[int],
        hidden: Sequence[int] = (100, 100),
        activation: str = "leaky_relu",
        spectral_norm: bool = True,
    ) -> None:
        latent_dim = LatentLayout(latent_dims).latent_dim
        super().__init__(latent_dim, hidden, activation, spectral_norm=spectral_norm)


class LayerEnergies(Energy):
    r"""A sum of energies, one per layer: :math:`E(z) = \sum_i E_i(z_i)` (Cui et al., CVPR 2023).

    Args:
        energies: one energy per layer, bottom first, each with a ``latent_dim`` such as :class:`MLPEnergy`.

    Raises:
        ValueError: without energies, or for an energy without a ``latent_dim``.

    Example:
        >>> import torch
        >>> from lebm.models import LayerEnergies, MLPEnergy
        >>> energy = LayerEnergies([MLPEnergy(2), MLPEnergy(3)])
        >>> energy(torch.zeros(4, 5)).shape, energy.layout.sizes
        (torch.Size([4]), [2, 3])
    """

    def __init__(self, energies: Sequence[Energy]) -> None:
        super().__init__()
        sizes = [energy.latent_dim for energy in energies]
        if any(size is None for size in sizes):
            raise ValueError("every energy of a layer must have a latent_dim")
        self.layout = LatentLayout([size for size in sizes if size is not None])
        self.latent_dim = self.layout.latent_dim
        self.energies = nn.ModuleList(energies)

    def forward(self, z: Tensor) -> Tensor:
        parts = [energy(part) for energy, part in zip(self.energies, self.layout.split(z), strict=True)]
        return torch.stack(parts).sum(dim=0)


class ConvEnergy(Energy):
    """An energy on a convolutional group of latents (Cui et al., CVPR 2023, released networks).

    Convolutions halve the size (kernel 4, stride 2) down to 4 x 4. The same number of fully connected layers
    follows, at least one.

    Args:
        shape: channels, height and width of the group. Height and width must be equal, a power of two, at
            least 4.
        channels: output channels of the convolutions (released: 64).
        hidden: width of the fully connected layers (released: 200).

    Raises:
        ValueError: for an invalid shape.

    Example:
        >>> import torch
        >>> from lebm.models import ConvEnergy
        >>> energy = ConvEnergy(shape=[20, 8, 8])
        >>> energy(torch.zeros(4, 20 * 8 * 8)).shape
        torch.Size([4])
    """

    def __init__(self, shape: Sequence[int], channels: int = 64, hidden: int = 200) -> None:
        super().__init__()
        if len(shape) != 3 or shape[1] != shape[2] or shape[1] < 4 or shape[1] & (shape[1] - 1):
            raise ValueError(f"the shape must be (C, H, H), H a power of two from 4 on, not {list(shape)}")
        halvings = int(math.log2(shape[1])) - 2
        self.latent_dim = math.prod(shape)
        self.net = nn.Sequential(nn.Unflatten(1, tuple(shape)))
        for before in [shape[0], *[channels] * (halvings - 1)][:halvings]:
            self.net.extend([nn.Conv2d(before, channels, 4, 2, 1), activation_layer("leaky_relu")])
        widths = [16 * (channels if halvings else shape[0]), *[hidden] * max(1, halvings), 1]
        self.net.extend([nn.Flatten(), *mlp(widths, "leaky_relu", output_bias=False)])

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z).squeeze(-1)
