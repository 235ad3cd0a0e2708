"""How well a score separates anomalies from normal samples."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_precision_recall_curve,
)
from torchmetrics.utilities.compute import auc

__all__ = ["anomaly_figures", "lowest_average_precision"]


def anomaly_figures(score: Tensor, anomaly: Tensor) -> dict[str, float]:
    """Ranking figures of an anomaly score; anomalies are the positives.

    Args:
        score: ``(N,)``, finite, of any scale, high for anomalies.
        anomaly: ``(N,)`` of ``bool``.

    Returns:
        ``auroc``; ``auprc``, the average precision, a step-wise sum; ``auprc_trapezoid``, the trapezoidal
        area under the same curve that the papers report, which linear interpolation makes too large where
        scores are tied; ``base_rate``, the share of anomalies and the ``auprc`` of guessing;
        ``auprc_lowest``, see :func:`lowest_average_precision`. Empty if one of the two classes is absent, for
        which none of them is defined.
    """
    positives = int(anomaly.sum())
    negatives = anomaly.numel() - positives
    if not positives or not negatives:
        return {}
    # torchmetrics puts scores outside [0, 1] through a sigmoid, which ties all large ones; ranks keep the
    # order and the ties.
    _, rank = torch.unique(score, return_inverse=True)
    preds, target = (rank + 1).double() / (rank.max() + 1), anomaly.long()
    precision, recall, _ = binary_precision_recall_curve(preds, target)
    return {
        "auroc": float(binary_auroc(preds, target)),
        "auprc": float(binary_average_precision(preds, target)),
        "auprc_trapezoid": float(auc(recall, precision)),
        "base_rate": positives / anomaly.numel(),
        "auprc_lowest": lowest_average_precision(positives, negatives),
    }


def lowest_average_precision(positives: int, negatives: int) -> float:
    r"""The average precision of the worst possible ranking, all negatives first.

    The i-th of P positives then comes at precision :math:`i / (N + i)`, so the figure is
    :math:`\frac{1}{P} \sum_{i=1}^{P} \frac{i}{N + i}`, which for many samples of base rate :math:`\pi` tends to
    :math:`1 + \frac{1 - \pi}{\pi} \log(1 - \pi)`. A reported value below it comes from another split.
    """
    place = torch.arange(1, positives + 1, dtype=torch.float64)
    return float((place / (negatives + place)).mean())
