"""How far apart two sets of points are."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["maximum_mean_discrepancy"]


def maximum_mean_discrepancy(a: Tensor, b: Tensor, width: float | None = None) -> Tensor:
    r"""Squared maximum mean discrepancy with a Gaussian kernel (Gretton et al. 2012, eq. 3).

    .. math:: \mathrm{MMD}^2 = E[k(a, a')] + E[k(b, b')] - 2 E[k(a, b)],
        \qquad k(u, v) = \exp(-|u - v|^2 / 2 w^2)

    This is the unbiased estimate. For equal densities it is zero in expectation, and it can be negative.

    Args:
        a: ``(n, d)``, n at least 2.
        b: ``(m, d)``, m at least 2.
        width: w. If ``None``, the median distance between points of ``b``; values against one reference are
            then comparable.

    Returns:
        A scalar.

    Raises:
        ValueError: for fewer than two points.

    Example:
        >>> import torch
        >>> from lebm.metrics import maximum_mean_discrepancy
        >>> a, b = torch.zeros(4, 2), torch.ones(4, 2)
        >>> maximum_mean_discrepancy(a, b, width=1.0)  # 2 - 2 / e
        tensor(1.2642)
    """
    if a.shape[0] < 2 or b.shape[0] < 2:
        raise ValueError(
            f"a discrepancy needs at least two points of each kind, not {a.shape[0]} and {b.shape[0]}"
        )
    if width is None:
        width = float(torch.pdist(b).median().clamp_min(1e-12))

    def kernel(distance: Tensor) -> Tensor:
        return (-0.5 * (distance / width).square()).exp()

    def between_different(distance: Tensor) -> Tensor:
        n = distance.shape[0]
        return (kernel(distance).sum() - n) / (n * (n - 1))

    within = between_different(torch.cdist(a, a)) + between_different(torch.cdist(b, b))
    return within - 2 * kernel(torch.cdist(a, b)).mean()
