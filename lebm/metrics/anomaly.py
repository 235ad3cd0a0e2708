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
    """Ranking metrics of an anomaly score; anomalies are the positives.

    - ``auroc``: area under the receiver operating characteristic.
    - ``auprc``: the average precision, a step-wise sum.
    - ``auprc_trapezoid``: the trapezoidal area under the same curve, as the papers report it. Its linear
      interpolation makes it too large where scores are tied.
    - ``base_rate``: the share of anomalies, which is also the ``auprc`` of guessing.
    - ``auprc_lowest``: see :func:`lowest_average_precision`.

    Args:
        score: ``(N,)``, finite, of any scale, high for anomalies.
        anomaly: ``(N,)`` of ``bool``.

    Returns:
        These metrics by name; empty if one of the two classes is absent, because none is then defined.

    Example:
        >>> import torch
        >>> from lebm.metrics import anomaly_figures
        >>> score, anomaly = torch.tensor([0.1, 0.2, 0.8, 0.9]), torch.tensor([False, True, False, True])
        >>> {name: round(value, 2) for name, value in anomaly_figures(score, anomaly).items()}
        {'auroc': 0.75, 'auprc': 0.83, 'auprc_trapezoid': 0.79, 'base_rate': 0.5, 'auprc_lowest': 0.42}
    """
    positives = int(anomaly.sum())
    negatives = anomaly.numel() - positives
    if not positives or not negatives:
        return {}
    # torchmetrics applies a sigmoid to scores outside [0, 1], and that ties all large scores. Ranks have the
    # same order and the same ties as the scores.
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
    r"""The average precision of the worst possible ranking: all N negatives first.

    The i-th of P positives then has the precision :math:`i / (N + i)`, so the value is
    :math:`\frac{1}{P} \sum_{i=1}^{P} \frac{i}{N + i}`. For many samples of base rate :math:`\pi` it tends to
    :math:`1 + \frac{1 - \pi}{\pi} \log(1 - \pi)`. A lower reported value cannot come from this split.

    Args:
        positives: P, at least 1.
        negatives: N, at least 0.

    Example:
        >>> from lebm.metrics import lowest_average_precision
        >>> round(lowest_average_precision(positives=100, negatives=900), 3)
        0.052
    """
    position = torch.arange(1, positives + 1, dtype=torch.float64)
    return float((position / (negatives + position)).mean())
