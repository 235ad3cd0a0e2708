"""Intervals cover the truth as often as they say."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor

from lebm.evaluation.intervals import _counts, jackknife_interval, mean_interval, ranking_intervals
from lebm.metrics import anomaly_figures, frechet_distance


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _scores(
    positives: int, negatives: int, shift: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    score = torch.randn(positives + negatives, generator=generator, dtype=torch.float64)
    anomaly = torch.arange(positives + negatives) < positives
    return score + shift * anomaly, anomaly


def _truth(rate: float, shift: float) -> dict[str, float]:
    """Areas of two unit normals ``shift`` apart at a base rate, by quadrature over the threshold."""
    grid = torch.linspace(-9, 9 + shift, 200_001, dtype=torch.float64)
    normal = torch.distributions.Normal(torch.tensor(0.0).double(), 1.0)
    hit, alarm = normal.cdf(shift - grid), normal.cdf(-grid)
    precision = (rate * hit / (rate * hit + (1 - rate) * alarm)).nan_to_num(1.0)
    density = normal.log_prob(grid - shift).exp() * (grid[1] - grid[0])
    return {
        "auroc": float(normal.cdf(torch.tensor(shift / math.sqrt(2)))),
        "auprc": float((precision * density).sum()),
        "fpr_at_95": float(normal.cdf(-(shift + normal.icdf(torch.tensor(0.05).double())))),
    }


def _covers(share: float, level: float, trials: int) -> bool:
    """Within three standard errors of the level, and two points for what is only asymptotically right."""
    return abs(share - level) < 3 * math.sqrt(level * (1 - level) / trials) + 0.02


@pytest.mark.parametrize(
    ("positives", "negatives", "shift"), [(100, 300, 1.0), (300, 100, 0.3), (60, 540, 2.0)]
)
def test_bootstrap_intervals_of_rankings_cover_at_their_level(
    positives: int, negatives: int, shift: float
) -> None:
    trials = 300
    hits = _hits(positives, negatives, shift, trials)
    assert all(_covers(count / trials, 0.95, trials) for count in hits.values()), hits


@pytest.mark.parametrize(
    ("positives", "negatives", "shift"), [(30, 300, 3.0), (50, 50, 3.0), (100, 300, 4.07), (20, 20, 2.33)]
)
def test_intervals_of_nearly_perfect_rankings_cover_at_their_level_or_above(
    positives: int, negatives: int, shift: float
) -> None:
    """Areas of .95 to .998, where many a resample is perfect and percentiles alone cover 82 to 90 %."""
    trials = 200
    hits = _hits(positives, negatives, shift, trials)
    slack = 3 * math.sqrt(0.95 * 0.05 / trials) + 0.01
    assert all(hits[name] / trials > 0.95 - slack for name in ("auroc", "auprc")), hits


def _hits(positives: int, negatives: int, shift: float, trials: int) -> dict[str, int]:
    """How often the intervals of fresh samples hold the truth."""
    generator, truth = source(), _truth(positives / (positives + negatives), shift)
    hits = dict.fromkeys(truth, 0)
    for trial in range(trials):
        found = ranking_intervals(*_scores(positives, negatives, shift, generator), resamples=200, seed=trial)
        for name, interval in found.items():
            hits[name] += interval.low < truth[name] < interval.high
    return hits


@pytest.mark.parametrize("tied", [False, True])
def test_the_figures_themselves_are_those_of_scikit_learn(tied: bool) -> None:
    score, anomaly = _scores(40, 90, 0.7, source())
    if tied:
        score = (2 * score).round()
    found = ranking_intervals(score, anomaly, resamples=50)
    assert found["auroc"].value == pytest.approx(roc_auc_score(anomaly, score), abs=1e-12)
    assert found["auprc"].value == pytest.approx(average_precision_score(anomaly, score), abs=1e-12)
    assert found["auroc"].value == pytest.approx(anomaly_figures(score, anomaly)["auroc"], abs=1e-6)
    assert found["auroc"].low < found["auroc"].value < found["auroc"].high
    false, true, _ = roc_curve(anomaly, score, drop_intermediate=False)
    assert found["fpr_at_95"].value == pytest.approx(false[true >= 0.95 - 1e-9][0], abs=1e-12)


def test_resampling_is_a_function_of_the_seed_and_spreads_as_the_samples_do() -> None:
    score, anomaly = _scores(200, 200, 1.0, source())
    a, b, c = (ranking_intervals(score, anomaly, resamples=300, seed=seed)["auroc"] for seed in (1, 1, 2))
    assert a == b != c
    # Hanley and McNeil 1982, for the standard error of an area under two exponentials or nearly anything
    area = a.value
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    error = math.sqrt((area * (1 - area) + 199 * (q1 - area**2) + 199 * (q2 - area**2)) / 200**2)
    assert (a.high - a.low) / (2 * 1.96) == pytest.approx(error, rel=0.2)


def test_resamples_keep_the_base_rate() -> None:
    positive = torch.arange(50) % 5 == 0
    counts = _counts(positive, 20, source())
    assert set(counts[:, positive].sum(1).tolist()) == {10.0}
    assert set(counts[:, ~positive].sum(1).tolist()) == {40.0}
    assert counts.max() > 1


def test_a_perfect_ranking_is_not_certain() -> None:
    found = ranking_intervals(torch.arange(20.0), torch.arange(20) >= 10, resamples=50)
    for name in ("auroc", "auprc"):
        assert found[name].value == found[name].high == 1.0
        assert 0.5 < found[name].low < 0.85
    assert found["fpr_at_95"].value == found["fpr_at_95"].low == 0.0
    wilson = binomtest(0, 10).proportion_ci(method="wilson")
    assert found["fpr_at_95"].high == pytest.approx(wilson.high, abs=1e-9)
    assert found["auprc"].low == pytest.approx(1 - wilson.high, abs=1e-9)
    with pytest.raises(ValueError, match="needs anomalies and normal"):
        ranking_intervals(torch.arange(4.0), torch.zeros(4, dtype=torch.bool))


def test_student_intervals_of_a_mean_cover_at_their_level() -> None:
    trials = 2000
    values = torch.randn(trials, 5, generator=source(), dtype=torch.float64)
    found = [mean_interval(row) for row in values]
    assert _covers(sum(interval.low < 0 < interval.high for interval in found) / trials, 0.95, trials)
    with pytest.raises(ValueError, match="at least two values"):
        mean_interval(torch.ones(1))


@pytest.mark.parametrize("share", [0.01, 0.3, 0.995])
def test_intervals_of_a_share_cover_and_stay_a_share(share: float) -> None:
    """Wilson's interval covers at 95% on average over shares; at one share by a few per cent more or less."""
    trials, n = 2000, 300
    values = (torch.rand(trials, n, generator=source()) < share).double()
    found = [mean_interval(row) for row in values]
    assert all(0 <= interval.low <= interval.value <= interval.high <= 1 for interval in found)
    covered = sum(interval.low < share < interval.high for interval in found) / trials
    assert 0.92 < covered < 0.99
    assert mean_interval(torch.zeros(300)).high == pytest.approx(0.0126, abs=1e-3)  # z^2 / (n + z^2)


def test_the_jackknife_knows_the_spread_of_a_frechet_distance() -> None:
    """Repeated draws of 1,000 samples against one fixed Gaussian; the mean distance at this number is the
    truth to cover.
    """
    generator, trials, blocks = source(), 200, 10
    mean, covariance = (
        torch.tensor([0.3, 0.0, 0.0]).double(),
        torch.diag(torch.tensor([1.0, 2.0, 0.5])).double(),
    )

    def distance(x: Tensor) -> float:
        return float(frechet_distance(x.mean(0), x.T.cov(), mean, covariance))

    found = []
    for _ in range(trials):
        parts = torch.randn(blocks, 100, 3, generator=generator, dtype=torch.float64)
        found.append(
            jackknife_interval(lambda chosen, parts=parts: distance(parts[chosen].flatten(0, 1)), blocks)
        )
    truth = sum(interval.value for interval in found) / trials
    assert _covers(sum(interval.low < truth < interval.high for interval in found) / trials, 0.95, trials)
