"""Least-squares density-ratio estimation in closed form, the classical baseline."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lebm.density_ratio.log_ratio import LogRatio, assess
from lebm.samplers.noise import RandomSource, uniform

__all__ = ["KernelRatio", "ulsif"]

WIDTHS = (0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)


class KernelRatio(LogRatio):
    """The log-ratio ``log max(sum_l a_l exp(-|z - c_l|^2 / 2 w^2), floor)``.

    Args:
        centres: c, ``(L, d)``.
        coefficients: a, ``(L,)``.
        width: w, of the Gaussian kernels.
        floor: lower bound of the ratio, because a least-squares ratio can be negative.
    """

    centres: Tensor
    coefficients: Tensor

    def __init__(self, centres: Tensor, coefficients: Tensor, width: float, floor: float = 1e-6) -> None:
        super().__init__()
        self.register_buffer("centres", centres)
        self.register_buffer("coefficients", coefficients)
        self.width = width
        self.floor = floor

    def forward(self, z: Tensor) -> Tensor:
        return (_kernel(z, self.centres, self.width) @ self.coefficients).clamp_min(self.floor).log()


def ulsif(
    positives: Tensor,
    negatives: Tensor,
    *,
    kernels: int = 100,
    widths: Sequence[float] = WIDTHS,
    ridges: Sequence[float] = RIDGES,
    held_out: float = 0.2,
    generator: RandomSource = None,
) -> KernelRatio:
    r"""Unconstrained least-squares importance fitting (Kanamori, Hido & Sugiyama 2009).

    .. math:: \min_a \tfrac12 a^\top H a - h^\top a + \tfrac{\lambda}{2} |a|^2, \qquad H = E_q[k k^\top],
        \quad h = E_p[k], \quad a = (H + \lambda I)^{-1} h

    The width and the ridge with the least held-out objective are chosen.

    Args:
        positives: ``(n, d)`` from p, in random order.
        negatives: ``(m, d)`` from q, in random order.
        kernels: number of Gaussian kernels, centred on positives.
        widths: kernel widths to try, in units of the median distance between centres.
        ridges: values of :math:`\lambda` to try.
        held_out: share of both samples that chooses between them. The quality is measured on the same share.
        generator: chooses the centres.

    Raises:
        ValueError: if a sample is too small to be split, there is no width or no ridge, or no objective is
            finite.

    Example:
        >>> import torch
        >>> from lebm.density_ratio import ulsif
        >>> generator = torch.Generator().manual_seed(0)
        >>> p, q = (torch.randn(500, 2, generator=generator) + shift for shift in (1.0, 0.0))
        >>> ratio = ulsif(p, q, generator=generator)
        >>> ratio(torch.tensor([[1.5, 1.5], [-0.5, -0.5]])).sign()  # the log-ratio there is 2 and -2
        tensor([ 1., -1.])
    """
    cuts = [len(sample) - round(held_out * len(sample)) for sample in (positives, negatives)]
    if min(cuts) < 1 or any(
        len(sample) - cut < 2 for sample, cut in zip((positives, negatives), cuts, strict=True)
    ):
        raise ValueError(
            f"{len(positives)} and {len(negatives)} samples cannot be split with held_out={held_out}"
        )
    if not widths or not ridges:
        raise ValueError("give at least one width and one ridge")
    (up, up_test), (down, down_test) = (
        (sample[:cut], sample[cut:]) for sample, cut in zip((positives, negatives), cuts, strict=True)
    )
    order = uniform(generator, (len(up),), dtype=torch.float64, device=up.device).argsort()
    centres = up[order[:kernels]]
    scale = torch.pdist(centres).median().item() if len(centres) > 1 else 1.0
    best, chosen = torch.inf, None
    for width in (scale * factor for factor in widths):
        on_down, on_down_test = _kernel(down, centres, width), _kernel(down_test, centres, width)
        square, mean = on_down.T @ on_down / len(down), _kernel(up, centres, width).mean(dim=0)
        mean_test = _kernel(up_test, centres, width).mean(dim=0)
        for ridge in ridges:
            coefficients = torch.linalg.solve(square + ridge * torch.eye(len(mean)).to(square), mean)
            objective = float(0.5 * (on_down_test @ coefficients).square().mean() - mean_test @ coefficients)
            if objective < best:
                best, chosen = objective, KernelRatio(centres, coefficients, width)
    if chosen is None:
        raise ValueError("no width and ridge gave a finite objective; are the samples finite?")
    chosen.quality = assess(chosen, up_test, down_test)
    return chosen


def _kernel(z: Tensor, centres: Tensor, width: float) -> Tensor:
    return (-0.5 * torch.cdist(z, centres).square() / width**2).exp()
