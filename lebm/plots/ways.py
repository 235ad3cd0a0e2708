"""Interpolation between latents, sweeps of single coordinates, and their images."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Decode = Callable[[Tensor], Tensor]


@torch.no_grad()
def decoded(decode: Decode, z: Tensor, size: int = 100) -> Tensor:
    """Decode latents ``(N, d)`` to host memory, ``size`` at a time.

    Example:
        >>> import torch
        >>> from lebm.plots import decoded
        >>> decoded(lambda z: 2 * z, torch.ones(3, 2), size=2).shape
        torch.Size([3, 2])
    """
    return torch.cat([decode(part).cpu() for part in z.split(size)])


def between(first: Tensor, last: Tensor, n: int) -> Tensor:
    r"""Interpolate ``n`` latents on the great circle between two latents ``(d,)``, ``(n, d)``, n at least 2.

    .. math:: z(t) = \frac{\sin((1 - t)\theta)\, a + \sin(t \theta)\, b}{\sin\theta}

    with the angle :math:`\theta` between them. Unlike on a straight line, the latents keep about the norm of
    samples of N(0, I).

    Example:
        >>> import torch
        >>> from lebm.plots import between
        >>> between(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), n=3).norm(dim=1)
        tensor([1.0000, 1.0000, 1.0000])
    """
    share = torch.linspace(0, 1, n, dtype=first.dtype, device=first.device).unsqueeze(1)
    cosine = (first @ last / (first.norm() * last.norm())).clamp(-1, 1)
    angle = cosine.arccos()
    if angle.sin() < 1e-4:  # equal or opposite directions, between which the circle is not unique
        return (1 - share) * first + share * last
    return (((1 - share) * angle).sin() * first + (share * angle).sin() * last) / angle.sin()


def swept(z: Tensor, coordinates: Sequence[int], width: float, n: int) -> Tensor:
    """Return ``z: (d,)`` with one coordinate at a time moved by ``-width`` to ``width``,
    ``(coordinates, n, d)``.

    Example:
        >>> import torch
        >>> from lebm.plots import swept
        >>> swept(torch.zeros(3), coordinates=[0, 2], width=1.0, n=5).shape
        torch.Size([2, 5, 3])
    """
    shifts = torch.linspace(-width, width, n, dtype=z.dtype, device=z.device)
    ways = z.repeat(len(coordinates), n, 1)
    for place, coordinate in enumerate(coordinates):
        ways[place, :, coordinate] += shifts
    return ways


def most_visible(
    decode: Decode, z: Tensor, width: float, n: int, among: Sequence[int] | None = None
) -> list[int]:
    """Return the ``n`` coordinates whose ends differ most as images, in the mean square, largest first.

    Args:
        decode: function from latents ``(N, d)`` to images.
        z: central latent, ``(d,)``.
        width: value added at one end and subtracted at the other end.
        n: number of coordinates to choose.
        among: coordinates to choose from; all if ``None``.

    Example:
        >>> import torch
        >>> from lebm.plots import most_visible
        >>> most_visible(lambda z: z * torch.tensor([1.0, 3.0, 2.0]), torch.zeros(3), width=1.0, n=2)
        [1, 2]
    """
    candidates = list(range(len(z)) if among is None else among)
    x = decoded(decode, swept(z, candidates, width, 2).flatten(0, 1))
    change = (x[1::2] - x[0::2]).flatten(1).square().mean(1)
    return [candidates[place] for place in change.argsort(descending=True, stable=True)[:n].tolist()]
