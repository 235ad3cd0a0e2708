"""Figures with their uncertainty: resampling for rankings, standard errors for means, the jackknife for smooth functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import norm, t
from torch import Tensor

__all__ = ["Interval", "jackknife_interval", "mean_interval", "ranking_intervals"]

_CELLS = 2**22  # numbers of a resampling table at once, 32 MB


@dataclass(frozen=True)
class Interval:
    """A figure and the interval that covers its true value in ``level`` of all repetitions, about.

    Attributes:
        value: the figure on the samples at hand.
        low: lower end.
        high: upper end.
        level: coverage asked for, in (0, 1).
        method: how the ends were found, in words.
    """

    value: float
    low: float
    high: float
    level: float
    method: str


def mean_interval(values: Tensor, level: float = 0.95, method: str = "") -> Interval:
    """The mean of independent ``values`` ``(N,)`` with Student's interval.

    Raises:
        ValueError: for fewer than two values.
    """
    n = values.numel()
    if n < 2:
        raise ValueError(f"an interval of a mean needs at least two values, not {n}")
    values = values.double()
    mean = float(values.mean())
    half = float(t.ppf(0.5 + level / 2, n - 1)) * float(values.std()) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, level, method or f"Student's t, {n} values")


def jackknife_interval(statistic: Callable[[Sequence[int]], float], blocks: int, level: float = 0.95) -> Interval:
    r"""Leave out one block of the samples at a time (Quenouille, Tukey):

    .. math:: \mathrm{se}^2 = \tfrac{g - 1}{g} \sum_{i=1}^{g} (\theta_{(i)} - \bar\theta_{(\cdot)})^2 .

    For a smooth function of means, such as a Frechet distance. It measures the noise of the samples at their number; the bias
    that the number itself causes is in the value.

    Args:
        statistic: the figure of the samples of some of the blocks, given their numbers.
        blocks: g, at least 2, of about equal size.
        level: coverage, by Student's t with g - 1 degrees of freedom.

    Raises:
        ValueError: for fewer than two blocks.
    """
    if blocks < 2:
        raise ValueError(f"a jackknife needs at least two blocks, not {blocks}")
    everything = list(range(blocks))
    value = statistic(everything)
    left_out = torch.tensor([statistic([one for one in everything if one != gone]) for gone in everything], dtype=torch.float64)
    error = math.sqrt((blocks - 1) / blocks * float((left_out - left_out.mean()).square().sum()))
    half = float(t.ppf(0.5 + level / 2, blocks - 1)) * error
    return Interval(value, value - half, value + half, level, f"jackknife over {blocks} blocks of the samples")


def ranking_intervals(score: Tensor, anomaly: Tensor, *, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> dict[str, Interval]:
    """Area under the ROC curve and average precision, with bootstrap intervals.

    Anomalies and normal samples are resampled each among themselves, so every resample has the base rate of the split, on which
    average precision depends. The interval is normal on the logit scale, with the resamples' spread there: inside (0, 1) here.

    Args:
        score: ``(N,)``, finite, high for anomalies. Ties count as half a win, and as one step of the precision-recall curve.
        anomaly: ``(N,)`` of ``bool``; both kinds must be present.
        resamples: bootstrap samples, at least 2.
        seed: of the resampling.
        level: coverage of each interval.

    Returns:
        ``auroc`` and ``auprc``.

    Raises:
        ValueError: if one kind is absent.
    """
    score, anomaly = score.detach().cpu().double(), anomaly.detach().cpu()
    order = score.argsort(descending=True)
    score, positive = score[order], anomaly[order].bool()
    if not positive.any() or positive.all():
        raise ValueError("a ranking needs anomalies and normal samples")
    last_of_tie = torch.cat([score[1:] != score[:-1], torch.tensor([True])]).nonzero().squeeze(1)
    every = _areas(torch.ones(1, len(score), dtype=torch.float64), positive, last_of_tie)
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[str, list[Tensor]] = {"auroc": [], "auprc": []}
    left = resamples
    while left:
        count = min(left, max(1, _CELLS // len(score)))
        left -= count
        for name, values in _areas(_counts(positive, count, generator), positive, last_of_tie).items():
            drawn[name].append(values)
    method = f"stratified bootstrap, {resamples} resamples, on the logit scale"
    return {name: _logit_interval(float(every[name]), torch.cat(drawn[name]), level, method) for name in drawn}


def _counts(positive: Tensor, resamples: int, generator: torch.Generator) -> Tensor:
    """How often each sample is drawn, ``(resamples, N)``, both kinds keeping their number."""
    counts = torch.zeros(resamples, len(positive), dtype=torch.float64)
    for kind in (positive, ~positive):
        rows = kind.nonzero().squeeze(1)
        chosen = rows[torch.randint(len(rows), (resamples, len(rows)), generator=generator)]
        counts.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=torch.float64))
    return counts


def _areas(counts: Tensor, positive: Tensor, last_of_tie: Tensor) -> dict[str, Tensor]:
    """Both areas of weighted samples in descending order, ``(resamples,)`` each."""
    true = (counts * positive).cumsum(1)[:, last_of_tie]
    false = (counts * ~positive).cumsum(1)[:, last_of_tie]
    true_before, false_before = (torch.nn.functional.pad(part[:, :-1], (1, 0)) for part in (true, false))
    wins = (false - false_before) * (true + true_before) / 2
    precision = true / (true + false).clamp_min(1e-300)
    gain = (true - true_before) / true[:, -1:]
    return {"auroc": wins.sum(1) / (true[:, -1] * false[:, -1]), "auprc": (gain * precision).sum(1)}


def _logit_interval(value: float, drawn: Tensor, level: float, method: str) -> Interval:
    if not 0 < value < 1 or not bool(((drawn > 0) & (drawn < 1)).all()):  # a perfect ranking, or nearly
        tail = torch.tensor([0.5 - level / 2, 0.5 + level / 2], dtype=torch.float64)
        low, high = (float(end) for end in drawn.quantile(tail))
        return Interval(value, min(low, value), max(high, value), level, method.replace("on the logit scale", "percentiles"))
    centre, half = math.log(value / (1 - value)), float(norm.ppf(0.5 + level / 2)) * float(drawn.logit().std())
    low, high = (1 / (1 + math.exp(-(centre + side * half))) for side in (-1, 1))
    return Interval(value, low, high, level, method)
