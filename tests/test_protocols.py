"""The weights of scripts/measures.py, against average precisions of plainly repeated images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def precision(monkeypatch: pytest.MonkeyPatch) -> Callable[..., float]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import measures

    return measures.precision


@pytest.fixture
def groups() -> tuple[Tensor, Tensor, Tensor]:
    """Scores of anomalies, of unseen normal images and of normal images that training saw."""
    generator = torch.Generator().manual_seed(0)
    anomalies, unseen, seen = (torch.randn(12, generator=generator) for _ in range(3))
    return anomalies + 1, unseen, seen - 0.5


def plain(anomalies: Tensor, *normal: Tensor) -> float:
    labels = torch.cat([torch.ones(len(anomalies)), *(torch.zeros(len(part)) for part in normal)])
    return float(average_precision_score(labels, torch.cat([anomalies, *normal])))


def test_the_honest_value_ranks_unseen_images_alone(
    precision: Callable[..., float], groups: tuple[Tensor, Tensor, Tensor]
) -> None:
    assert precision(*groups, 0.5, 0.0) == pytest.approx(plain(groups[0], groups[1]))


def test_a_base_rate_is_that_of_repeated_normal_images(
    precision: Callable[..., float], groups: tuple[Tensor, Tensor, Tensor]
) -> None:
    assert precision(*groups, 0.25, 0.0) == pytest.approx(plain(groups[0], groups[1].repeat(3)))
    assert precision(*groups, 0.75, 0.0) == pytest.approx(plain(groups[0].repeat(3), groups[1]))


def test_a_leak_mixes_seen_images_at_its_share(
    precision: Callable[..., float], groups: tuple[Tensor, Tensor, Tensor]
) -> None:
    anomalies, unseen, seen = groups
    mixed = plain(anomalies.repeat(5), unseen, seen.repeat(4))
    assert precision(*groups, 0.5, 0.8) == pytest.approx(mixed)
    assert precision(*groups, 0.5, 0.8) > precision(*groups, 0.5, 0.0)  # seen images look more normal
