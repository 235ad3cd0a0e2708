"""The classifier on features, mutual information, and the attack on an encoder."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import mutual_info_score

from lebm.metrics import classify, mutual_information, mutual_information_gap
from lebm.metrics.classification import latent_attack
from lebm.models import DiagonalGaussian, LatentLayout


def clouds(n: int, gap: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two unit Gaussians ``gap`` apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (n,), generator=generator)
    return (
        torch.randn(n, 2, generator=generator) + gap * labels.unsqueeze(1) * torch.tensor([1.0, 0.0]),
        labels,
    )


def test_a_classifier_reaches_what_can_be_known() -> None:
    """Two Gaussians two apart: the best accuracy is Phi(1) = .8413."""
    share = classify(clouds(4000, 2.0, 0), clouds(20_000, 2.0, 1), epochs=5)
    assert abs(share - 0.8413) < 4 * (0.8413 * 0.1587 / 20_000) ** 0.5 + 0.005
    assert share == classify(clouds(4000, 2.0, 0), clouds(20_000, 2.0, 1), epochs=5)
    with torch.inference_mode():
        assert abs(classify(clouds(2000, 0.0, 0), clouds(2000, 0.0, 1), epochs=1) - 0.5) < 0.05
    with pytest.raises(ValueError, match="as many labels as features"):
        classify((torch.zeros(3, 2), torch.zeros(2).long()), clouds(4, 1.0, 0))


def test_mutual_information_is_that_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(5, (500,), generator=generator) for _ in range(2))
    b = torch.where(a > 2, a, b)
    assert float(mutual_information(a, b)) == pytest.approx(mutual_info_score(a.numpy(), b.numpy()))


def test_the_gap_is_one_for_a_coordinate_a_factor() -> None:
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(4, (20_000, 2), generator=generator)
    apart = torch.cat([factors.double(), torch.rand(20_000, 1, generator=generator).double()], dim=1)
    gap, supervised = mutual_information_gap(apart, factors)
    assert gap == pytest.approx(1.0, abs=0.01)
    assert supervised == pytest.approx(2 / 3, abs=0.01)  # the third coordinate knows neither
    twice = torch.cat([apart, factors[:, :1].double(), factors[:, 1:].double()], dim=1)
    assert mutual_information_gap(twice, factors)[0] == pytest.approx(0.0, abs=0.01)
    assert mutual_information_gap(apart, factors[:, :1])[1] is None
    with pytest.raises(ValueError, match="factor 0 never varies"):
        mutual_information_gap(apart, torch.zeros(20_000, 1).long())


def linear_encoder(x: torch.Tensor) -> DiagonalGaussian:
    """Four coordinates: twice the first pixels, of standard deviation one."""
    return DiagonalGaussian(2 * x.flatten(1)[:, :4], torch.zeros(len(x), 4))


def test_an_attack_on_a_linear_encoder_goes_as_far_as_the_box_allows() -> None:
    """KL is 2 |x - x_t|^2 over a layer's pixels, so the attack clips their difference at the radius and
    leaves the other pixels alone.
    """
    generator = torch.Generator().manual_seed(0)
    x, target = (torch.rand(5, 1, 3, 3, generator=generator) * 1.6 - 0.8 for _ in range(2))
    layout = LatentLayout([2, 2])
    attacked = latent_attack(linear_encoder, x, target, layout, 1, radius=0.25, steps=200)
    moved, apart = (attacked - x).flatten(1), (target - x).flatten(1)
    assert torch.equal(moved[:, :2], torch.zeros(5, 2))
    assert torch.equal(moved[:, 4:], torch.zeros(5, 5))
    torch.testing.assert_close(moved[:, 2:4], apart[:, 2:4].clamp(-0.25, 0.25), rtol=0, atol=0.0035)
    after = layout.sums(linear_encoder(attacked).divergences(linear_encoder(target)))
    torch.testing.assert_close(after[:, 1], 2 * (target - attacked).flatten(1)[:, 2:4].square().sum(dim=1))
    assert (latent_attack(linear_encoder, x, target, layout, 0, radius=2.0).abs() <= 1).all()
