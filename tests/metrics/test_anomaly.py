"""Anomaly figures against scikit-learn and brute force."""

import itertools
import math

import pytest
import torch
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from lebm.metrics import anomaly_figures, lowest_average_precision, surprisal


@pytest.mark.parametrize("scale", [1.0, 1e4])  # torchmetrics alone would squash and tie the large scores
@pytest.mark.parametrize("ties", [False, True])
def test_equals_scikit_learn(scale: float, ties: bool) -> None:
    source = torch.Generator().manual_seed(0)
    anomaly = torch.rand(3000, generator=source) < 0.35
    score = scale * (torch.randn(3000, generator=source, dtype=torch.float64) + anomaly)
    score = (score / scale * 3).round() * scale if ties else score
    figures = anomaly_figures(score, anomaly)
    precision, recall, _ = precision_recall_curve(anomaly.numpy(), score.numpy())
    assert figures["auroc"] == pytest.approx(roc_auc_score(anomaly.numpy(), score.numpy()), abs=1e-6)
    assert figures["auprc"] == pytest.approx(
        average_precision_score(anomaly.numpy(), score.numpy()), abs=1e-6
    )
    assert figures["auprc_trapezoid"] == pytest.approx(auc(recall, precision), abs=1e-6)
    assert figures["base_rate"] == pytest.approx(float(anomaly.double().mean()))


def test_high_scores_mean_anomalies() -> None:
    anomaly = torch.tensor([False, False, True, True])
    score = torch.tensor([-900.0, -800.0, 700.0, 700.5])
    assert anomaly_figures(score, anomaly)["auroc"] == 1
    assert anomaly_figures(score, anomaly)["auprc"] == 1
    assert anomaly_figures(-score, anomaly)["auroc"] == 0


@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (1, 3), (2, 2), (3, 1), (2, 3)])
def test_lowest_average_precision_by_trying_every_ranking(positives: int, negatives: int) -> None:
    total = positives + negatives
    anomaly = torch.arange(total) < positives
    numbers = itertools.product(range(total), repeat=total)  # with ties
    rankings = {tuple(sorted(set(row)).index(value) for value in row) for row in numbers}
    lowest = min(average_precision_score(anomaly.numpy(), ranking) for ranking in rankings)
    assert lowest_average_precision(positives, negatives) == pytest.approx(lowest, rel=1e-12)


@pytest.mark.parametrize(
    ("rate", "published"), [(0.388, 0.225), (0.351, 0.200), (0.331, 0.188), (0.368, 0.212), (0.356, 0.204)]
)
def test_lowest_average_precision_of_large_splits(rate: float, published: float) -> None:
    value = lowest_average_precision(round(rate * 20_000), round((1 - rate) * 20_000))
    assert value == pytest.approx(1 + (1 - rate) / rate * math.log(1 - rate), abs=1e-4)
    assert value == pytest.approx(published, abs=1e-3)


@pytest.mark.parametrize("flag", [False, True])
def test_one_class_alone_has_no_figures(flag: bool) -> None:
    assert anomaly_figures(torch.randn(5), torch.full((5,), flag)) == {}


def test_surprisal_of_normal_samples_is_exponential():
    """-log p of a continuous score is Exponential(1): mean 1, variance 1, P(s > t) = exp(-t)."""
    source = torch.Generator().manual_seed(0)
    normal, fresh = (torch.empty(n).exponential_(generator=source) for n in (20_000, 50_000))
    found = surprisal(fresh, normal)
    # Errors of both samples: sd of the share above t is sqrt(p (1 - p) (1 / N + 1 / M)).
    for t in (0.1, 0.7, 2.0, 2.9, 3.5, 5.0):  # the tail begins at -log 0.05, that is at 3.0
        p = math.exp(-t)
        error = math.sqrt(p * (1 - p) * (1 / 20_000 + 1 / 50_000))
        slope = p * (t - 3) / math.sqrt(1000) if t > 3 else 0.0  # the mean excess is that of 1,000 samples
        assert float((found > t).double().mean()) == pytest.approx(p, abs=4 * (error + slope))
    assert surprisal(3 * fresh + 5, 3 * normal + 5).sub(found).abs().max() < 1e-3  # any scale, any origin
    ordered = surprisal(torch.linspace(-6, 60, 2000), normal)
    assert (ordered.diff() >= 0).all()
    assert ordered[0] == 0


def test_the_tail_of_the_surprisal_goes_on_with_the_mean_excess():
    source = torch.Generator().manual_seed(1)
    normal = torch.empty(40_000).exponential_(0.5, generator=source)
    far = surprisal(torch.tensor([20.0, 40.0, 80.0]), normal)
    # The slope is 1 / mean excess of 2,000 exponential samples, with a relative error of 1 / sqrt(2,000).
    slopes = far.diff() / torch.tensor([20.0, 40.0])
    assert slopes.tolist() == pytest.approx([0.5, 0.5], rel=4 / math.sqrt(2000))


@pytest.mark.parametrize("size", [40, 100, 1000])
def test_the_mean_excess_of_few_normal_samples_is_unbiased(size: int):
    """Excesses over the lowest score of the tail are Exponential(1): nine of ten, or 49 of 50."""
    source, count = torch.Generator().manual_seed(2), max(10, size // 20)
    slopes = []
    for _ in range(500):
        ends = surprisal(torch.tensor([30.0, 31.0]), torch.empty(size).exponential_(generator=source))
        slopes.append(float(ends.diff()))
    excess = sum(1 / slope for slope in slopes) / 500
    assert excess == pytest.approx(1, abs=4 / math.sqrt(500 * (count - 1)))


def test_surprisal_needs_normal_samples_and_stays_finite_where_all_are_equal():
    with pytest.raises(ValueError, match="at least 40 normal samples, not 39"):
        surprisal(torch.zeros(3), torch.zeros(39))
    assert surprisal(torch.tensor([-1.0, 0.0, 1.0]), torch.zeros(40)).isfinite().all()
