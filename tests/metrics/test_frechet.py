"""Fréchet distance against closed forms, scipy and torchmetrics."""

import pytest
import scipy.linalg
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from lebm.metrics import FrechetDistance, frechet_distance


def _covariance(d: int, rank: int, seed: int) -> Tensor:
    factor = torch.randn(d, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return factor @ factor.T / rank


def test_two_gaussians_with_a_common_basis_have_a_closed_form() -> None:
    a, b = (
        torch.tensor([4.0, 1.0, 0.25], dtype=torch.float64),
        torch.tensor([1.0, 9.0, 0.25], dtype=torch.float64),
    )
    basis = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ).Q
    mean_a, mean_b = torch.zeros(3, dtype=torch.float64), torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
    value = frechet_distance(mean_a, basis * a @ basis.T, mean_b, basis * b @ basis.T)
    assert float(value) == pytest.approx(
        5 + 1 + 4, rel=1e-12
    )  # |mean difference|^2 and sum of (sqrt a - sqrt b)^2


@pytest.mark.parametrize("d", [1, 5, 40])
def test_equals_the_matrix_square_root_of_scipy(d: int) -> None:
    first, second = _covariance(d, 2 * d, 1), _covariance(d, 3 * d, 2)
    mean = torch.linspace(0, 1, d, dtype=torch.float64)
    root = scipy.linalg.sqrtm((first @ second).numpy()).real
    expected = float(mean.square().sum() + first.trace() + second.trace()) - 2 * root.trace()
    assert float(frechet_distance(mean, first, torch.zeros_like(mean), second)) == pytest.approx(
        expected, rel=1e-9
    )
    assert float(frechet_distance(torch.zeros_like(mean), second, mean, first)) == pytest.approx(
        expected, rel=1e-9
    )


def test_rank_deficient_covariances() -> None:
    # Two lines at angle t: the root of the product has the single eigenvalue |cos t| sqrt(l1 l2).
    u, v = torch.zeros(30, dtype=torch.float64), torch.zeros(30, dtype=torch.float64)
    u[0], v[0], v[1] = 1, 0.6, 0.8
    zero = torch.zeros_like(u)
    value = frechet_distance(zero, 4 * torch.outer(u, u), zero, 9 * torch.outer(v, v))
    assert float(value) == pytest.approx(4 + 9 - 2 * 0.6 * 6, abs=1e-6)
    assert float(frechet_distance(zero, 4 * torch.outer(u, u), zero, 4 * torch.outer(u, u))) == pytest.approx(
        0, abs=1e-6
    )


class _Identity(nn.Module):
    num_features = 24

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("real", "fake"), [(200, 150), (10, 30)]
)  # the second with fewer samples than features
def test_equals_torchmetrics_on_the_same_features(real: int, fake: int) -> None:
    source = torch.Generator().manual_seed(3)
    first = torch.randn(real, 24, generator=source) * torch.linspace(0.1, 3, 24) + 5
    second = torch.randn(fake, 24, generator=source) + 4
    ours, theirs = FrechetDistance(24), FrechetInceptionDistance(feature=_Identity()).set_dtype(torch.float64)
    for features, is_real in ((first, True), (second, False)):
        for piece in features.split(37):
            ours.update(piece, real=is_real)
        theirs.update(features.double(), real=is_real)
    assert float(ours.compute()) == pytest.approx(float(theirs.compute()), rel=1e-6)


def test_equal_sets_are_at_distance_zero_and_zero_rows_change_nothing() -> None:
    features = torch.randn(100, 6, generator=torch.Generator().manual_seed(4))
    metric = FrechetDistance(6)
    metric.update(features, real=True)
    metric.update(features[:60], real=False)
    metric.update(features[:0], real=False)
    metric.update(features[60:], real=False)
    assert float(metric.compute()) == pytest.approx(0, abs=1e-10)


def test_reset_keeps_the_real_side_also_across_inference_mode() -> None:
    source = torch.Generator().manual_seed(5)
    real, one, two = (torch.randn(50, 4, generator=source) + shift for shift in (0, 1, 2))
    metric = FrechetDistance(4)
    with torch.inference_mode():
        metric.update(real, real=True)
        metric.update(two, real=False)
    metric.reset()
    metric.update(one, real=False)
    fresh = FrechetDistance(4)
    fresh.update(real, real=True)
    fresh.update(one, real=False)
    assert float(metric.compute()) == float(fresh.compute())


def test_too_few_samples_are_refused() -> None:
    metric = FrechetDistance(3)
    metric.update(torch.randn(5, 3), real=True)
    metric.update(torch.randn(1, 3), real=False)
    with pytest.raises(ValueError, match="at least two fake samples, not 1"):
        metric.compute()
