"""Density ratios against Gaussians whose ratio is known, and against scikit-learn."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from lebm.density_ratio import Training, logistic, sequential, telescoping
from lebm.density_ratio.log_ratio import assess, logistic_loss
from lebm.models import MLPEnergy, RatioPrior, RatioProduct
from lebm.samplers import MALA, AnnealedImportanceSampling

SHIFT = torch.tensor([0.9, -0.6])
KL = float(SHIFT.square().sum() / 2)


def truth(z: torch.Tensor) -> torch.Tensor:
    """log N(z; SHIFT, I) / N(z; 0, I), constant included."""
    return z @ SHIFT.to(z) - KL


def shifted(n: int, generator=None, along: float = 1.0) -> torch.Tensor:
    return along * SHIFT + torch.randn(n, 2, generator=generator)


def noise(n: int, generator=None) -> torch.Tensor:
    return torch.randn(n, 2, generator=generator)


def linear_energy(max_stages: int | None = None):
    torch.manual_seed(0)
    energy = MLPEnergy(2, [], output_bias=True)
    return energy if max_stages is None else RatioProduct(energy, max_stages)


def coefficients(log_ratio) -> torch.Tensor:
    """Slope and constant of a linear log-ratio in two dimensions."""
    with torch.no_grad():
        value = log_ratio(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    return torch.stack([value[0] - value[2], value[1] - value[2], value[2]])


KNOWN = torch.cat([SHIFT, torch.tensor([-KL])])


def standard_errors(n: int) -> torch.Tensor:
    """Of the three coefficients of a logistic regression on n pairs: the inverse Fisher information, by its
    definition.
    """
    z = torch.cat(
        [shifted(200_000, torch.Generator().manual_seed(1)), noise(200_000, torch.Generator().manual_seed(2))]
    )
    design = torch.cat([z, torch.ones(len(z), 1)], dim=1).double()
    p = torch.sigmoid(truth(z)).double()
    information = (design * (p * (1 - p))[:, None]).T @ design / 200_000 * n
    return torch.linalg.inv(information).diagonal().sqrt().float()


def test_logistic_recovers_the_ratio_and_its_constant():
    generator = torch.Generator().manual_seed(0)
    training = Training(steps=400, batch_size=2000, lr=0.03)
    ratio = logistic(shifted, noise, linear_energy(), training, generator)
    # Averaging over the last part of a cosine schedule is worth at least 50 batches.
    tolerance = 4 * standard_errors(50 * training.batch_size)
    assert (coefficients(ratio) - KNOWN).abs().le(tolerance).all()


def test_the_loss_is_least_at_the_truth_and_two_log_two_at_the_ratio_one():
    generator = torch.Generator().manual_seed(0)
    up, down = truth(shifted(100_000, generator)), truth(noise(100_000, generator))
    moved = [float(logistic_loss(-(up + c), -(down + c))) for c in (-0.1, 0.0, 0.1)]
    assert moved[1] < min(moved[0], moved[2])
    nothing = torch.zeros(5)
    assert float(logistic_loss(nothing, nothing)) == pytest.approx(2 * math.log(2))


def test_logistic_agrees_with_scikit_learn_on_the_same_samples():
    generator = torch.Generator().manual_seed(0)
    positives, negatives = shifted(5000, generator), noise(5000, generator)
    training = Training(steps=800, batch_size=4000, lr=0.05)
    ours = coefficients(logistic(positives, negatives, linear_energy(), training, generator))
    used = np.concatenate([positives[:4000].numpy(), negatives[:4000].numpy()])  # the last fifth is held out
    peer = LogisticRegression(C=np.inf, tol=1e-8).fit(used, np.repeat([1, 0], 4000))
    theirs = torch.tensor([*peer.coef_[0], peer.intercept_[0]], dtype=torch.float32)
    assert (ours - theirs).abs().max() < 0.02  # batches are drawn with replacement
    assert (theirs - KNOWN).abs().max() > 0.02  # closer to each other than the sample is to the truth


def test_the_product_of_stages_equals_the_one_stage_ratio():
    generator = torch.Generator().manual_seed(0)
    training = Training(steps=300, batch_size=2000, lr=0.03)
    halfway = lambda n, generator: shifted(n, generator, 0.5)  # noqa: E731
    product = telescoping([noise, halfway, shifted], linear_energy(2), training, generator)
    one = logistic(shifted, noise, linear_energy(), training, generator)
    tolerance = 4 * 2 * standard_errors(50 * 2000)
    assert (coefficients(product) - coefficients(one)).abs().le(tolerance).all()
    assert (coefficients(product) - KNOWN).abs().le(tolerance).all()
    with pytest.raises(ValueError, match="join 2 to 3 waymarks, not 4"):
        telescoping([noise] * 4, linear_energy(2), training)


def test_sequential_stages_recover_the_ratio_where_one_stage_saturates():
    """KL 12 in 4 dimensions: the sum of logits misses log Z, and annealing finds it."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.full((4,), math.sqrt(6.0))
    samples = mean + torch.randn(20_000, 4, generator=generator)
    torch.manual_seed(0)
    prior = RatioPrior(RatioProduct(MLPEnergy(4, [32, 32], output_bias=True), 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ratio = sequential(
            samples, prior, Training(steps=150, lr=3e-3), chains=1024, burn_in=20, generator=generator
        )
    test = mean + torch.randn(20_000, 4, generator=generator)
    with torch.no_grad():
        estimate, raw = ratio(test).mean().item(), -ratio.energy(test).mean().item()
    constant = prior.log_constant()
    assert prior.tilt.complete
    assert estimate == pytest.approx(12.0, rel=0.07)
    assert ratio.quality.kl == pytest.approx(estimate, abs=0.3)
    assert ratio.quality.kl_high - ratio.quality.kl_low > constant.high - constant.low
    assert raw - estimate == pytest.approx(float(constant.estimate), abs=1e-3)
    assert abs(raw - 12.0) > 2 * abs(estimate - 12.0)


def test_annealing_over_linear_stages_finds_the_exact_constant():
    """Stages exp(a'z + c) tilt N(0, I): log Z = |sum a|^2 / 2 + sum c."""
    from lebm.density_ratio.log_ratio import staged_log_z

    prior = RatioPrior(linear_energy(3))
    total, shift = torch.zeros(2), 0.0
    for a, c in (([1.0, 0.5], 0.3), ([0.8, -1.0], -1.1)):
        with torch.no_grad():
            prior.tilt.active.net[0].weight.copy_(-torch.tensor([a]))
            prior.tilt.active.net[0].bias.fill_(-c)
        prior.tilt.switch()
        total, shift = total + torch.tensor(a), shift + c
    annealing = AnnealedImportanceSampling(MALA(2, 0.8), 20)
    constant = staged_log_z(prior, annealing, 1000, torch.Generator().manual_seed(0))
    assert constant.low < total.square().sum().item() / 2 + shift < constant.high
    assert constant.high - constant.low < 0.5
    assert constant.ess > 100


def test_a_stage_that_separates_perfectly_says_so():
    far = lambda n, generator: 30 + torch.randn(n, 2, generator=generator)  # noqa: E731
    prior = RatioPrior(linear_energy(1))
    with pytest.warns(UserWarning, match="stage 1 separates its samples .* raise max_stages"):
        sequential(
            far,
            prior,
            Training(steps=300, batch_size=100, lr=0.1),
            chains=100,
            generator=torch.Generator().manual_seed(0),
        )


def test_quality_of_the_exact_ratio():
    generator = torch.Generator().manual_seed(0)
    n = 40_000
    quality = assess(truth, shifted(n, generator), noise(n, generator))
    distance = float(SHIFT.norm())
    accuracy = 0.5 * (1 + math.erf(distance / 2 / math.sqrt(2)))
    assert quality.accuracy == pytest.approx(accuracy, abs=4 * 0.5 / math.sqrt(2 * n))
    assert quality.kl_low < KL < quality.kl_high
    assert quality.kl_high - quality.kl_low == pytest.approx(2 * 1.96 * distance / math.sqrt(n), rel=0.05)
    confident = assess(lambda z: 5 * truth(z), shifted(n, generator), noise(n, generator))
    assert confident.cross_entropy > quality.cross_entropy


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="at least two rows in each part"):
        logistic(torch.randn(3, 2), noise, linear_energy(), Training(steps=1))
    with pytest.raises(ValueError, match="10 chains are fewer than the 256 negatives"):
        sequential(noise, RatioPrior(linear_energy(1)), chains=10)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        Training(batch_size=0)
