"""Langevin against closed forms: on a Gaussian the chain is linear, so its moments at every step are known,
bias included.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from lebm.samplers import HMC, MALA, Langevin
from lebm.samplers.metropolis import clip_rows, shadow_acceptance
from tests.ground_truth.monte_carlo import second_moments, z_scores
from tests.ground_truth.targets import gaussian

CHAINS = 4000


def standard(z: Tensor) -> Tensor:
    return -0.5 * z.square().sum(dim=1)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def variance_after(
    steps: list[tuple[float, float]], precision: float = 1.0, start: float = 0.0, metric: float = 1.0
) -> float:
    """The variance recursion of the linear chain, v <- (1 - lambda M s^2/2)^2 v + n^2 M."""
    for size, noise in steps:
        start = (1 - 0.5 * size**2 * precision * metric) ** 2 * start + noise**2 * metric
    return start


@pytest.mark.parametrize("size", [0.1, 0.4, 1.0])
def test_stationary_variance_on_a_standard_normal(size: float) -> None:
    steps = math.ceil(12 / size**2)
    state = Langevin(steps, size)(standard, torch.zeros(CHAINS, 10), source())
    expected = 1 / (1 - size**2 / 4)
    assert abs(variance_after([(size, size)] * steps) - expected) < 1e-3
    assert z_scores(state.square().flatten().unsqueeze(1), expected) < 4
    assert z_scores(state, 0.0) < 4


def test_short_runs_have_the_variance_of_the_recursion() -> None:
    state = Langevin(20, 0.1)(standard, torch.zeros(CHAINS, 10), source())
    assert z_scores(state.square().flatten().unsqueeze(1), variance_after([(0.1, 0.1)] * 20)) < 4


def test_a_linear_energy_moves_every_chain_by_the_same_known_amount() -> None:
    tilt = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    init, sampler = torch.randn(50, 3, generator=source(), dtype=torch.float64), Langevin(60, 0.4)
    shifted = sampler(lambda z: standard(z) - z @ tilt, init, source(1))
    expected = -tilt * (1 - (1 - 0.4**2 / 2) ** 60)  # the mean -tilt, up to what the start still contributes
    torch.testing.assert_close(
        shifted - sampler(standard, init, source(1)), expected.expand(50, 3), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("metric", [None, [0.5, 1.0, 2.0]])
def test_linear_gaussian_posterior_with_the_closed_form_bias(metric: list[float] | None) -> None:
    """p(z) = N(0, I), x = W z + N(0, sigma^2): precision P = I + W'W / sigma^2; in M-coordinates the
    covariance of ULA solves C = A C A' + s^2 I with A = I - s^2/2 P, that is C = (P (I - s^2 P / 4))^-1."""
    weights, x, sigma, size = (
        torch.tensor([[1.0, 0.5, 0.0], [0.0, -0.7, 0.3]], dtype=torch.float64),
        torch.tensor([1.5, -0.5]).double(),
        0.5,
        0.4,
    )
    precision = torch.eye(3).double() + weights.T @ weights / sigma**2
    mean = precision.inverse() @ weights.T @ x / sigma**2
    root = torch.diag(torch.ones(3).double() if metric is None else torch.tensor(metric).double().sqrt())
    inner = root @ precision @ root
    covariance = root @ (inner @ (torch.eye(3) - size**2 / 4 * inner)).inverse() @ root

    def posterior(z: Tensor) -> Tensor:
        return standard(z) - (x - z @ weights.T).square().sum(1) / (2 * sigma**2)

    state = Langevin(200, size, preconditioner=metric)(
        posterior, torch.zeros(4 * CHAINS, 3).double(), source()
    )
    assert z_scores(state, mean) < 4
    assert z_scores(second_moments(state, mean), covariance) < 4
    assert z_scores(second_moments(state, mean), precision.inverse()) > 4, (
        "this many chains must be able to see the bias"
    )


def test_diverges_beyond_the_stability_limit() -> None:
    init = torch.ones(8, 2)
    assert Langevin(200, 1.9)(standard, init, source()).abs().max() < 100
    assert Langevin(200, 2.1)(standard, init, source()).abs().max() > 1e6


def test_step_size_schedule() -> None:
    sizes = [0.8, 0.4, 0.2]
    state = Langevin(8, sizes)(standard, torch.zeros(CHAINS, 10), source())
    expected = variance_after([(size, size) for size in [*sizes, *[0.2] * 5]])
    assert z_scores(state.square().flatten().unsqueeze(1), expected) < 4
    state = Langevin(8, sizes)(standard, torch.zeros(CHAINS, 10), source(), steps=2)
    assert z_scores(state.square().flatten().unsqueeze(1), variance_after([(0.8, 0.8), (0.4, 0.4)])) < 4


@pytest.mark.parametrize("temperature", [0.25, 4.0])
def test_temperature(temperature: float) -> None:
    state = Langevin(80, 0.5, temperature=temperature)(standard, torch.zeros(CHAINS, 10), source())
    assert z_scores(state.square().flatten().unsqueeze(1), temperature / (1 - 0.5**2 / 4)) < 4


def test_noise_scale_is_a_temperature_and_annealing_follows_the_recursion() -> None:
    init = torch.ones(5, 3)
    by_noise = Langevin(10, 0.5, noise_scale=0.1)(standard, init, source())
    torch.testing.assert_close(by_noise, Langevin(10, 0.5, temperature=0.04)(standard, init, source()))
    heats = [4.0, 2.0, 1.0, 0.5]
    state = Langevin(4, 0.6, temperature=heats)(standard, torch.zeros(CHAINS, 10), source())
    assert (
        z_scores(
            state.square().flatten().unsqueeze(1), variance_after([(0.6, 0.6 * heat**0.5) for heat in heats])
        )
        < 4
    )


def test_without_noise_it_is_gradient_ascent() -> None:
    state, info = Langevin(10, 0.5, noise_scale=0.0).run(standard, torch.ones(4, 3), source())
    torch.testing.assert_close(state, torch.full((4, 3), (1 - 0.125) ** 10))
    assert "acceptance" not in info.extra


def test_clipping_is_by_row_and_clamping_by_coordinate() -> None:
    gradient = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    torch.testing.assert_close(clip_rows(gradient, 1.0), torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))
    steep = lambda z: -100.0 * z.square().sum(1)  # noqa: E731
    init = torch.tensor([[5.0, 0.0]])
    moved = Langevin(3, 0.2, noise_scale=0.0, max_grad_norm=10.0)(steep, init)
    torch.testing.assert_close(moved, torch.tensor([[5.0 - 3 * 0.5 * 0.2**2 * 10, 0.0]]))
    state = Langevin(5, 2.0, clamp=(-1.0, 0.5))(standard, torch.zeros(100, 4), source())
    assert state.min() == -1.0
    assert state.max() == 0.5


def test_a_clamped_step_has_no_acceptance() -> None:
    """A state at a bound is no draw of the proposal that the ratio is about."""
    init = torch.randn(50, 4, generator=source()).clamp(-1, 1)
    state, info = Langevin(3, 0.5, clamp=(-1.0, 1.0)).run(standard, init, source(1))
    assert (state.abs() == 1).any()
    assert "acceptance" not in info.extra
    torch.testing.assert_close(info.log_density_change, standard(state) - standard(init))
    with pytest.raises(ValueError, match="no acceptance"):
        Langevin(1, 0.5, clamp=(-1.0, 1.0)).warm_up(standard, init)


def test_shadow_acceptance_is_the_metropolis_ratio() -> None:
    """Against torch.distributions: pi(z')^(1/T) q(z | z') / (pi(z)^(1/T) q(z' | z))."""
    target, size, noise, metric = gaussian(), 0.5, 0.4, torch.tensor([0.5, 1.0, 2.0]).double()
    before = target.exact(200, source())
    after = target.exact(200, source(1)) * 0.1 + before

    def slope(z: Tensor) -> Tensor:
        z = z.clone().requires_grad_(True)
        return torch.autograd.grad(target.log_density(z).sum(), z)[0]

    def proposal(start: Tensor) -> MultivariateNormal:
        return MultivariateNormal(
            start + 0.5 * size**2 * metric * slope(start), noise**2 * torch.diag(metric)
        )

    tempered = (target.log_density(after) - target.log_density(before)) * (size / noise) ** 2
    expected = (
        (tempered + proposal(after).log_prob(before) - proposal(before).log_prob(after)).exp().clamp(max=1)
    )
    found, value = shadow_acceptance(
        target.log_density, before, after, slope(before), size, noise, metric=metric
    )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(value, target.log_density(after))
    assert 0.05 < expected.mean() < 0.95


def test_shadow_acceptance_equals_that_of_mala_for_the_same_step() -> None:
    target = gaussian()
    init = target.exact(500, source())
    _, shadow = Langevin(1, 0.8).run(target.log_density, init, source(1))
    _, real = MALA(1, 0.8).run(target.log_density, init, source(1))
    torch.testing.assert_close(
        shadow.extra["acceptance"], real.extra["acceptance"].double(), atol=1e-6, rtol=0
    )
    assert 0.2 < shadow.extra["acceptance"].mean() < 0.95


def test_the_reported_acceptance_is_that_of_the_last_step() -> None:
    target, generator = gaussian(), source(1)
    init = target.exact(64, source())
    _, whole = Langevin(23, 0.5).run(target.log_density, init, source(1))
    before = Langevin(22, 0.5)(
        target.log_density, init, generator
    )  # 64 rows of 3: draws in pieces are the same numbers
    _, last = Langevin(1, 0.5).run(target.log_density, before, generator)
    torch.testing.assert_close(whole.extra["acceptance"], last.extra["acceptance"])
    assert 0.5 < last.extra["acceptance"].mean() < 0.99


@pytest.mark.parametrize(
    "sampler",
    [Langevin(1, 0.01), MALA(1, 3.0), HMC(1, 0.01, leapfrog_steps=4)],
    ids=lambda s: type(s).__name__,
)
def test_warm_up_finds_the_step_of_the_target_acceptance(sampler: Langevin | MALA | HMC) -> None:
    target = gaussian()
    sampler.target_acceptance = 0.7
    state = sampler.warm_up(target.log_density, target.exact(200, source()), source(), steps=300)
    scale = sampler.step_scale
    rates = []
    for seed in range(20):
        state, info = sampler.run(target.log_density, state, source(seed), steps=1)
        rates.append(info.extra["acceptance"].mean())
    assert abs(torch.stack(rates).mean() - 0.7) < 0.05
    assert sampler.step_scale == scale, "nothing adapts outside warm_up"


@pytest.mark.parametrize("step", [0.5, 2.0])
def test_warm_up_survives_a_step_at_which_chains_diverge(step: float) -> None:
    """On a banana, whose gradients grow like a cube."""

    def banana(z: Tensor) -> Tensor:
        return -0.5 * z[:, 0].square() - 2 * (z[:, 1] - 0.5 * z[:, 0].square()).square()

    sampler = Langevin(100, step)
    state = sampler.warm_up(banana, torch.randn(500, 2, generator=source()), source())
    assert torch.isfinite(state).all()
    assert 0.1 < sampler.step_scale * step < 1


def test_warm_up_needs_an_acceptance() -> None:
    with pytest.raises(ValueError, match="no acceptance"):
        Langevin(1, 0.1, noise_scale=0.0).warm_up(standard, torch.zeros(3, 2))
