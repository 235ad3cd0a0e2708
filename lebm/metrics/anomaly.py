"""Metrics of the separation of anomalies from normal samples by a score."""

import torch
from torch import Tensor
from torch.nn.functional import pad

FEWEST_NORMAL = 40
_TAIL, _FEWEST_IN_TAIL = 0.05, 10


def anomaly_figures(score: Tensor, anomaly: Tensor) -> dict[str, float]:
    """Return the ranking metrics of an anomaly score, with anomalies as positives.

    ``auroc`` is the area under the receiver operating characteristic, ``auprc`` average precision, a
    step-wise sum, and ``auprc_trapezoid`` the trapezoidal area under the same curve, as reported in the
    papers, which is too large if scores are tied. ``base_rate`` is the share of anomalies, which is the
    ``auprc`` of a random score, and ``auprc_lowest`` is :func:`lowest_average_precision`.

    Args:
        score: finite scores ``(N,)``, high for anomalies.
        anomaly: mask of the anomalies, ``(N,)`` of ``bool``.

    Returns:
        Metrics by name; empty if one of the two classes is absent.

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
    true, false = ranking(score, anomaly)
    areas = ranking_areas(true[None], false[None])
    recall, precision = true / true[-1], true / (true + false)
    return {
        "auroc": float(areas["auroc"]),
        "auprc": float(areas["auprc"]),
        "auprc_trapezoid": float(torch.trapezoid(pad(precision, (1, 0), value=1.0), pad(recall, (1, 0)))),
        "base_rate": positives / anomaly.numel(),
        "auprc_lowest": lowest_average_precision(positives, negatives),
    }


def ranking(score: Tensor, anomaly: Tensor, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return anomalies and normal samples above each threshold, ``(..., thresholds)`` of float64 each.

    Thresholds are the distinct scores, highest first.

    Args:
        score: finite scores ``(N,)``.
        anomaly: mask of the anomalies, ``(N,)`` of ``bool``.
        counts: multiplicities of the samples, ``(..., N)``; 1 if ``None``.
    """
    order = score.argsort(descending=True)
    score, positive = score[order], anomaly[order].bool()
    last = torch.cat([score[1:] != score[:-1], score.new_ones(1, dtype=torch.bool)])  # of a tie
    weight = positive.new_ones(len(score), dtype=torch.float64) if counts is None else counts[..., order]
    return (weight * positive).cumsum(-1)[..., last], (weight * ~positive).cumsum(-1)[..., last]


def ranking_areas(true: Tensor, false: Tensor) -> dict[str, Tensor]:
    """Return ``auroc``, ``auprc`` and ``fpr_at_95`` of rows of :func:`ranking`, ``(rows,)`` each.

    ``fpr_at_95`` is the false positive rate at the highest threshold with a recall of at least 95%.
    """
    true_before, false_before = (pad(part[:, :-1], (1, 0)) for part in (true, false))
    wins = (false - false_before) * (true + true_before) / 2
    precision = true / (true + false).clamp_min(1e-300)
    gain = (true - true_before) / true[:, -1:]
    enough = (true >= 0.95 * true[:, -1:] - 1e-9).long().argmax(1, keepdim=True)  # the first such threshold
    return {
        "auroc": (wins.sum(1) / (true[:, -1] * false[:, -1])).clamp(max=1),
        "auprc": (gain * precision).sum(1).clamp(max=1),
        "fpr_at_95": (false.gather(1, enough) / false[:, -1:]).squeeze(1),
    }


def lowest_average_precision(positives: int, negatives: int) -> float:
    r"""Return the average precision of the worst possible ranking: all N negatives first.

    The i-th of P positives then has the precision :math:`i / (N + i)`, so the value is
    :math:`\frac{1}{P} \sum_{i=1}^{P} \frac{i}{N + i}`. For many samples of base rate :math:`\pi` it tends to
    :math:`1 + \frac{1 - \pi}{\pi} \log(1 - \pi)`. A lower value cannot come from this split.

    Args:
        positives: number of positives P, at least 1.
        negatives: number of negatives N, at least 0.

    Example:
        >>> from lebm.metrics import lowest_average_precision
        >>> round(lowest_average_precision(positives=100, negatives=900), 3)
        0.052
    """
    position = torch.arange(1, positives + 1, dtype=torch.float64)
    return float((position / (negatives + position)).mean())


def surprisal(score: Tensor, normal: Tensor) -> Tensor:
    r"""Return ``-log p`` in nats, where p is the share of normal samples with a score at least as high.

    For normal samples the surprisal of any score is about Exponential(1), and the sum of surprisals is the
    statistic of Fisher's method for combining tests. It needs neither anomalies nor weights.

    The highest 5% of the normal scores, at least ten, are replaced by an exponential tail, in which m is the
    mean excess of the others over the lowest of them, ``u``: :math:`p = 0.05\, e^{-(s - u) / m}`. It
    continues beyond the highest normal score.

    Args:
        score: scores ``(N,)``, high for anomalies.
        normal: finite scores of normal samples, ``(M,)``, M at least 40.

    Returns:
        Surprisals ``(N,)`` in float64, at least 0.

    Raises:
        ValueError: for fewer than 40 normal samples.

    Example:
        >>> import torch
        >>> from lebm.metrics import surprisal
        >>> normal = torch.arange(100.0)
        >>> surprisal(torch.tensor([20.0, 50.0, 500.0]), normal).round(decimals=2).tolist()
        [0.22, 0.69, 84.3]
    """
    if len(normal) < FEWEST_NORMAL:
        raise ValueError(f"needs at least {FEWEST_NORMAL} normal samples, not {len(normal)}")
    score = score.double()
    ordered = normal.double().to(score.device).sort().values
    count = max(_FEWEST_IN_TAIL, round(_TAIL * len(ordered)))
    threshold = ordered[-count]
    excess = (ordered[1 - count :] - threshold).mean().clamp_min(1e-12 * (1 + threshold.abs()))
    body = (len(ordered) - torch.searchsorted(ordered, score)) / len(ordered)
    tail = -torch.tensor(count / len(ordered)).double().log() + (score - threshold) / excess
    return torch.where(score > threshold, tail, -body.clamp_min(count / len(ordered)).log())
