"""Intervals of estimates (bootstrap, Student, jackknife) and curves of rankings."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import brentq
from scipy.stats import binomtest, norm, t
from torch import Tensor

from lebm.metrics.anomaly import ranking, ranking_areas

__all__ = ["Interval", "jackknife_interval", "mean_interval", "ranking_intervals"]

_CELLS = 2**22  # entries of a resampling table in memory, 32 MB
LEVEL = 0.95  # coverage of every interval
POINTS = 120  # largest number of points of a curve


@dataclass(frozen=True)
class Interval:
    """An estimate with a 95% interval.

    Attributes:
        value: estimate.
        low: lower end of the interval.
        high: upper end of the interval.
        method: method of the interval, in words.

    Example:
        >>> from lebm.evaluation.intervals import Interval
        >>> interval = Interval(0.9, low=0.85, high=0.94, method="bootstrap")
        >>> round(interval.high - interval.low, 2)
        0.09
    """

    value: float
    low: float
    high: float
    method: str


def mean_interval(values: Tensor, method: str = "") -> Interval:
    """Return the mean of independent ``values`` with Student's 95% interval, or Wilson's for zeros and ones.

    Args:
        values: values ``(N,)``, N at least 2.
        method: description of the method; the default one if empty.

    Raises:
        ValueError: for fewer than two values.

    Example:
        >>> from lebm.evaluation.intervals import mean_interval
        >>> import torch
        >>> interval = mean_interval(torch.tensor([1.0, 2.0, 3.0]))
        >>> round(interval.value, 2), round(interval.low, 2), round(interval.high, 2)
        (2.0, -0.48, 4.48)
    """
    n = values.numel()
    if n < 2:
        raise ValueError(f"an interval of a mean needs at least two values, not {n}")
    values = values.double()
    mean = float(values.mean())
    if bool(((values == 0) | (values == 1)).all()):
        ends = binomtest(int(values.sum()), n).proportion_ci(method="wilson")
        return Interval(mean, ends.low, ends.high, method or f"Wilson, {n} values")
    half = float(t.ppf(0.975, n - 1)) * float(values.std()) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, method or f"Student's t, {n} values")


def jackknife_interval(statistic: Callable[[Sequence[int]], float], blocks: int) -> Interval:
    r"""Return the jackknife interval of a statistic, which leaves out one block of the samples at a time:

    .. math:: \mathrm{se}^2 = \tfrac{g - 1}{g} \sum_{i=1}^{g} (\theta_{(i)} - \bar\theta_{(\cdot)})^2 .

    It is for smooth functions of means, such as a Fréchet distance. The 95% interval (Student's t) covers the
    noise of this number of samples, but not the bias due to the number. ``statistic`` is a function from the
    numbers of some of the g ``blocks``, of about equal size, to the value for their samples.

    Raises:
        ValueError: for fewer than two blocks.
    """
    everything = range(blocks)
    value = statistic(list(everything))
    values = [statistic([one for one in everything if one != gone]) for gone in everything]
    left_out = torch.tensor(values, dtype=torch.float64)
    error = math.sqrt((blocks - 1) / blocks * float((left_out - left_out.mean()).square().sum()))
    half = float(t.ppf(0.975, blocks - 1)) * error
    return Interval(value, value - half, value + half, f"jackknife over {blocks} blocks of the samples")


def ranking_intervals(
    score: Tensor, anomaly: Tensor, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Return AUROC, average precision, and the false positive rate at 95% recall, with bootstrap intervals.

    Anomalies and normal samples are resampled separately, so every resample has the base rate of the split,
    on which average precision depends. The interval is normal on the logit scale, so it is inside (0, 1). If
    a resample reaches 0 or 1, the percentile interval is used, widened to the score interval: Newcombe's
    (2006) for AUROC, and Wilson's for the other two, over anomalies and over normal samples. The interval of
    the false positive rate is too narrow below about 100 anomalies; for 20 its coverage is 80%.

    Args:
        score: finite scores ``(N,)``, high for anomalies. Ties count as half a win, and as one step of the
            precision-recall curve.
        anomaly: mask of the anomalies, ``(N,)`` of ``bool``.
        resamples: number of bootstrap samples, at least 2.
        seed: seed of the resampling.

    Returns:
        ``auroc``, ``auprc`` and ``fpr_at_95``, see :func:`~lebm.metrics.anomaly.ranking_areas`.

    Raises:
        ValueError: without anomalies, or without normal samples.

    Example:
        >>> import torch
        >>> from lebm.evaluation.intervals import ranking_intervals
        >>> score, anomaly = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([False, True, False, True])
        >>> ranking_intervals(score, anomaly)["auroc"].value
        0.75
    """
    score, anomaly = score.detach().cpu().double(), anomaly.detach().cpu()
    if not anomaly.any() or anomaly.all():
        raise ValueError("a ranking needs anomalies and normal samples")
    order = score.argsort(descending=True)  # resamples are drawn in this order
    score, positive = score[order], anomaly[order].bool()
    every = ranking_areas(*ranking(score, positive, torch.ones(1, len(score), dtype=torch.float64)))
    generator, size = torch.Generator().manual_seed(seed), max(1, _CELLS // len(score))
    counts = (min(size, resamples - first) for first in range(0, resamples, size))
    drawn = [ranking_areas(*ranking(score, positive, _counts(positive, n, generator))) for n in counts]
    anomalies, normal = int(positive.sum()), int((~positive).sum())
    spare = (anomalies + normal) / 2 - 1

    def area_variance(area: float) -> float:  # Newcombe 2006, method 5
        excess = spare * ((1 - area) / (2 - area) + area / (1 + area))
        return area * (1 - area) * (1 + excess) / (anomalies * normal)

    variances: dict[str, Callable[[float], float]] = {
        "auroc": area_variance,
        "auprc": lambda share: share * (1 - share) / anomalies,
        "fpr_at_95": lambda share: share * (1 - share) / normal,
    }
    return {
        name: _unit_interval(float(value), torch.cat([part[name] for part in drawn]), variances[name])
        for name, value in every.items()
    }


def _counts(positive: Tensor, resamples: int, generator: torch.Generator) -> Tensor:
    """Return the multiplicity of each sample in each resample, ``(resamples, N)``, separately by kind."""
    counts = torch.zeros(resamples, len(positive), dtype=torch.float64)
    for kind in (positive, ~positive):
        rows = kind.nonzero().squeeze(1)
        chosen = rows[torch.randint(len(rows), (resamples, len(rows)), generator=generator)]
        counts.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=torch.float64))
    return counts


def _unit_interval(value: float, drawn: Tensor, variance: Callable[[float], float]) -> Interval:
    method, tail = f"stratified bootstrap, {len(drawn)} resamples", 0.5 - LEVEL / 2
    z = float(norm.ppf(1 - tail))
    if 0 < value < 1 and bool(((drawn > 0) & (drawn < 1)).all()):
        centre, half = math.log(value / (1 - value)), z * float(drawn.logit().std())
        low, high = (1 / (1 + math.exp(-(centre + side * half))) for side in (-1, 1))
        return Interval(value, low, high, f"{method}, on the logit scale")
    low, high = (float(end) for end in drawn.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)))

    def excess(truth: float) -> float:  # negative if the truth is less than z standard errors from the value
        return (value - truth) ** 2 - z * z * variance(truth)

    tiny = 1e-12
    below = value > 2 * tiny and excess(tiny) > 0 > excess(value - tiny)
    above = value < 1 - 2 * tiny and excess(1 - tiny) > 0 > excess(value + tiny)
    lowest = brentq(excess, tiny, value - tiny) if below else 0.0
    widest = lowest, brentq(excess, value + tiny, 1 - tiny) if above else 1.0
    method = f"{method}, percentiles and score interval"
    return Interval(value, min(low, widest[0]), max(high, widest[1]), method)


def histogram(groups: dict[str, Tensor]) -> dict[str, Any]:
    """Return ``low`` and ``high``, the ends of 50 common bins, and ``shares``, the shares of each group per
    bin, for values ``(N,)`` by name.

    The bins span all values but the lowest and the highest 0.5%, which the outermost bins count.
    """
    pooled = torch.cat([values.double() for values in groups.values()]).sort().values
    low, high = (float(pooled[round(share * (len(pooled) - 1))]) for share in (0.005, 0.995))
    if not high > low:
        low, high = low - 0.5, high + 0.5
    shares = {}
    for name, values in groups.items():
        counts = torch.histc(values.double().clamp(low, high), 50, low, high)
        shares[name] = [round(float(count) / max(1, len(values)), 6) for count in counts]
    return {"low": low, "high": high, "shares": shares}


def ranking_curves(score: Tensor, anomaly: Tensor) -> dict[str, list[list[float]]]:
    """Return ``roc``, pairs of false and true positive rate, and ``pr``, pairs of recall and precision.

    Each curve has at most 120 points, including both ends. The arguments are as in :func:`ranking_intervals`.
    """
    true, false = ranking(score, anomaly)
    hit, alarm, precision = true / true[-1], false / false[-1], true / (true + false)
    roc, pr = torch.stack([alarm, hit], dim=1), torch.stack([hit, precision], dim=1)
    start = torch.zeros(1, 2, dtype=torch.float64)
    return {"roc": _thinned(torch.cat([start, roc])), "pr": _thinned(pr)}


def _thinned(points: Tensor) -> list[list[float]]:
    """Return points at about equal distances along the curve."""
    steps = points.diff(dim=0).abs().sum(dim=1)
    length = torch.cat([torch.zeros(1, dtype=steps.dtype), steps.cumsum(0)])
    grid = torch.linspace(0, float(length[-1]), POINTS, dtype=steps.dtype)
    kept = torch.searchsorted(length, grid).clamp(max=len(points) - 1).unique()
    return [[round(float(value), 5) for value in point] for point in points[kept]]
