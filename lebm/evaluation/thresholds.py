"""From a rate of false alarms to a threshold of an anomaly score."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["threshold_at"]


def threshold_at(scores: Tensor, rate: float) -> float:
    """The smallest of some scores of normal rows that at most a share ``rate`` of these scores exceeds.

    A row is flagged if its score is above the threshold. A score that is not a number counts as the highest.

    Args:
        scores: anomaly scores of normal rows that training did not use, ``(N,)``.
        rate: the false-positive rate, above 0 and below 1.

    Raises:
        ValueError: for another rate, or no scores.

    Example:
        >>> import torch
        >>> from lebm.evaluation.thresholds import threshold_at
        >>> threshold_at(torch.arange(100.0), rate=0.05)
        94.0
    """
    if not 0 < rate < 1 or not len(scores):
        raise ValueError(f"the rate must be above 0 and below 1, with at least one score: {rate}")
    ordered = scores.double().nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf).sort().values
    above = int(rate * len(ordered) + 1e-9)  # 0.05 * 100 is below 5 in binary
    return float(ordered[len(ordered) - 1 - above])
