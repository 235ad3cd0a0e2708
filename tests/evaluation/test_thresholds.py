"""A threshold of an anomaly score at a rate of false alarms."""

from __future__ import annotations

import pytest
import torch

from lebm.evaluation.scores import threshold_at


@pytest.mark.parametrize(("rate", "above"), [(0.05, 5), (0.1, 10), (0.29, 29), (0.004, 0), (0.999, 99)])
def test_the_share_above_is_the_rate(rate: float, above: int) -> None:
    scores = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert int((scores > threshold_at(scores, rate)).sum()) == above


def test_ties_and_broken_scores_never_raise_the_rate() -> None:
    assert threshold_at(torch.tensor([1.0, 2.0, 2.0, 2.0]), 0.25) == 2.0
    assert threshold_at(torch.tensor([1.0, torch.nan, 2.0, 3.0]), 0.25) == 3.0


@pytest.mark.parametrize(("scores", "rate"), [([1.0], 0.0), ([1.0], 1.0), ([], 0.5)])
def test_what_cannot_be_answered(scores: list[float], rate: float) -> None:
    with pytest.raises(ValueError, match="rate must be above 0"):
        threshold_at(torch.tensor(scores), rate)
