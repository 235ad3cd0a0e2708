"""Precision, recall, density and coverage."""

from __future__ import annotations

import pytest
import torch
from torch_fidelity.metric_prc import calculate_precision_recall_full

from lebm.metrics import frechet as module
from lebm.metrics import neighbour_rows


def _clouds(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(300, 4, generator=generator), 0.7 * torch.randn(200, 4, generator=generator) + 0.8


def test_precision_and_recall_are_those_of_torch_fidelity() -> None:
    real, fake = _clouds()
    for k in (1, 3, 5):
        found = neighbour_rows(real, fake, k)
        precision, recall = calculate_precision_recall_full(fake, real, k)
        assert found["precision"].mean() == pytest.approx(precision, abs=1e-6)
        assert found["recall"].mean() == pytest.approx(recall, abs=1e-6)
        assert 0 < recall < precision < 1


def test_features_far_from_the_origin_are_not_rounded() -> None:
    real, fake = _clouds()
    far = neighbour_rows(real.double() + 1e4, fake.double() + 1e4)
    for name, rows in neighbour_rows(real + 1e4, fake + 1e4).items():
        assert rows.mean() == pytest.approx(float(far[name].mean()), abs=0.02), name


def test_density_and_coverage_by_hand() -> None:
    real = torch.tensor([[0.0], [1.0], [3.0], [7.0]])  # radii for k = 1: 1, 1, 2, 4
    fake = torch.tensor([[0.5], [2.5], [20.0]])
    found = neighbour_rows(real, fake, 1)
    assert found["density"].tolist() == [2, 1, 0]  # 0.5 is in the balls of 0 and 1, 2.5 in that of 3
    assert found["coverage"].tolist() == [1, 1, 1, 0]
    assert found["precision"].tolist() == [1, 1, 0]
    assert found["recall"].tolist() == [1, 1, 1, 1]  # radii of the generated: 2, 2, 17.5


def test_pieces_do_not_matter_and_equal_clouds_score_near_one(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = _clouds()
    whole = neighbour_rows(real, fake)
    monkeypatch.setattr(module, "_CELLS", 1000)
    for name, rows in neighbour_rows(real, fake).items():
        assert torch.equal(rows, whole[name])
    other = torch.randn(2000, 4, generator=torch.Generator().manual_seed(1))
    same = neighbour_rows(other[:1000], other[1000:])
    assert same["density"].mean() == pytest.approx(1, abs=0.1)
    assert same["coverage"].mean() > 0.94  # 1 - 2^-k for equal numbers
    assert neighbour_rows(other[:1000], other[1000:] + 9)["coverage"].mean() == 0


def test_refusals() -> None:
    with pytest.raises(ValueError, match="below both 5 and 9 samples"):
        neighbour_rows(torch.zeros(5, 2), torch.zeros(9, 2))
