"""Chains with a Metropolis test have no bias: started far from the target, they end with its moments."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lebm.samplers import HMC, MALA, Langevin, Masked, ParallelTempering, Sampler
from tests.ground_truth.monte_carlo import second_moments, z_scores
from tests.ground_truth.targets import TARGETS, Target, gaussian, mixture

CHAINS = 3000
SAMPLERS = {
    "MALA": lambda name: MALA(
        *{"gaussian": (300, 0.7), "mixture": (300, 1.2), "banana": (400, 0.9), "funnel": (1500, 0.7)}[name]
    ),
    "HMC": lambda name: HMC(40 if name != "funnel" else 150, 0.45, leapfrog_steps=5),
    "PT": lambda name: ParallelTempering(MALA(1, 0.8), [1.0, 2.0, 4.0], 150 if name != "funnel" else 300),
}


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize("name", SAMPLERS)
def test_no_bias(name: str, target: Target) -> None:
    key = next(key for key, value in TARGETS.items() if value is target)
    init = 0.5 * torch.randn(CHAINS, target.dim, generator=source(), dtype=torch.float64)
    state = SAMPLERS[name](key)(target.log_density, init, source(1))
    assert z_scores(target.features(state), target.expected) < 4


@pytest.mark.parametrize(
    "sampler", [MALA(1, 1.5), HMC(1, 1.0, leapfrog_steps=3, jitter=0.3)], ids=["MALA", "HMC"]
)
def test_one_transition_leaves_the_target_invariant(sampler: Sampler) -> None:
    """Steps so large that a good part is rejected: a test wrongly done shows at once."""
    target = TARGETS["banana"]
    state, info = sampler.run(target.log_density, target.exact(40_000, source()), source(1))
    assert 0.3 < info.extra["acceptance"].mean() < 0.9
    assert z_scores(target.features(state), target.expected) < 4


def test_unadjusted_langevin_of_the_same_step_is_biased() -> None:
    target = gaussian()
    covariance = target.expected[3:].reshape(3, 3) - torch.outer(target.expected[:3], target.expected[:3])
    init = target.exact(CHAINS, source())
    biased = Langevin(300, 0.7)(target.log_density, init, source(1))
    assert z_scores(second_moments(biased, target.expected[:3]), covariance) > 6
    unbiased = MALA(300, 0.7)(target.log_density, init, source(1))
    assert z_scores(second_moments(unbiased, target.expected[:3]), covariance) < 4


def test_preconditioned_kernels_have_the_target_they_had() -> None:
    target = gaussian()
    for sampler in (
        MALA(200, 0.7, preconditioner=[1.5, 1.0, 0.6]),
        HMC(40, 0.4, 4, preconditioner=[1.5, 1.0, 0.6]),
    ):
        state = sampler(target.log_density, torch.zeros(CHAINS, 3).double(), source())
        assert z_scores(target.features(state), target.expected) < 4


def test_leapfrog_is_reversible_and_conserves_energy_to_second_order() -> None:
    target, init = TARGETS["banana"], TARGETS["banana"].exact(50, source())
    momentum = torch.randn(50, 2, generator=source(1), dtype=torch.float64)

    def slope(z: Tensor) -> Tensor:
        z = z.clone().requires_grad_(True)
        return torch.autograd.grad(target.log_density(z).sum(), z)[0]

    def fly(size: float, leaps: int, z: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        end, turned, _, _ = HMC(1, size, leaps)._leapfrog(
            target.log_density, z, p, slope(z), torch.tensor(size).double()
        )
        return end, turned

    def hamiltonian(z: Tensor, p: Tensor) -> Tensor:
        return -target.log_density(z) + 0.5 * p.square().sum(1)

    end, turned = fly(0.1, 10, init, momentum)
    back, _ = fly(0.1, 10, end, -turned)
    torch.testing.assert_close(back, init)
    coarse, fine = (
        (hamiltonian(*fly(1 / leaps, leaps, init, momentum)) - hamiltonian(init, momentum)).abs().mean()
        for leaps in (20, 40)
    )
    assert 3.5 < coarse / fine < 4.5


def test_tempering_crosses_modes_where_langevin_does_not() -> None:
    """Modes 12 standard deviations apart, weights 0.3 and 0.7, all chains started in the lesser one."""
    target = mixture(distance=6.0)
    init = torch.randn(400, 2, generator=source()) - torch.tensor([6.0, 0.0])
    stuck = Langevin(400, 0.8)(target.log_density, init, source(1))
    assert (stuck[:, 0] > 0).double().mean() == 0
    temperatures = [1.0, 2.5, 6.0, 15.0, 40.0]
    tempering = ParallelTempering(MALA(1, 0.8), temperatures, 400, kernel_steps=1)
    crossed, info = tempering.run(target.log_density, init, source(1))
    assert z_scores((crossed[:, 0] > 0).double().unsqueeze(1), 0.7) < 4
    assert z_scores(target.features(crossed), target.expected) < 4
    assert info.extra["swap_acceptance"].shape == (4,)
    assert (info.extra["swap_acceptance"] > 0.15).all()


def test_each_replica_has_its_own_temperature() -> None:
    """On N(0, I) the replica at T has variance T."""
    tempering = ParallelTempering(MALA(1, 0.8), [1.0, 2.0, 5.0], 100)
    start = torch.zeros(CHAINS, 3, 4)
    replicas, _ = tempering._exchange(lambda z: -0.5 * z.square().sum(1), start, source(), 100)
    for replica, temperature in enumerate([1.0, 2.0, 5.0]):
        assert z_scores(replicas[:, replica].square(), temperature) < 4


def test_a_masked_sampler_draws_from_the_conditional() -> None:
    """p(z1, z3 | z2) of a Gaussian, with its textbook mean and covariance."""
    target = gaussian()
    given = torch.full((CHAINS, 3), 0.7, dtype=torch.float64)
    state = Masked(MALA(300, 0.6), [False, True, False])(target.log_density, given, source())
    assert state[:, 1].eq(0.7).all()
    mean, second = target.expected[:3], target.expected[3:].reshape(3, 3)
    covariance = second - torch.outer(mean, mean)
    free, fixed = [0, 2], [1]
    gain = covariance[free][:, fixed] @ covariance[fixed][:, fixed].inverse()
    expected = mean[free] + gain @ (0.7 - mean[fixed])
    spread = covariance[free][:, free] - gain @ covariance[fixed][:, free]
    assert z_scores(state[:, free], expected) < 4
    assert z_scores(second_moments(state[:, free], expected), spread) < 4


def test_proposals_that_are_not_finite_are_rejected_and_counted() -> None:
    """A hard wall at 0.5: the truncated normal is sampled without ever leaving its support."""

    def walled(z: Tensor) -> Tensor:
        return torch.where(z[:, 0] < 0.5, -0.5 * z.square().sum(1), torch.nan)

    state, info = MALA(200, 0.8).run(walled, torch.zeros(CHAINS, 1).double(), source())
    assert (state < 0.5).all()
    assert info.extra["nonfinite_proposals"].sum() > 0
    normal = torch.distributions.Normal(torch.tensor(0.0).double(), 1.0)
    expected = -normal.log_prob(torch.tensor(0.5)).exp() / normal.cdf(torch.tensor(0.5))
    assert z_scores(state, expected) < 4


@pytest.mark.parametrize("far", [-torch.inf, torch.nan])
def test_a_start_without_density_moves_at_the_first_finite_proposal(far: float) -> None:
    def edge(z: Tensor) -> Tensor:
        return torch.where(z[:, 0].abs() < 3.0, -0.5 * z.square().sum(1), far + 0 * z[:, 0].detach())

    state = MALA(200, 1.0)(edge, torch.full((200, 1), 3.2), source())
    assert (state.abs() < 3.0).double().mean() > 0.99


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MALA(1, -0.1), "step_size must be positive"),
        (lambda: HMC(1, 0.1, leapfrog_steps=0), "leapfrog_steps must be at least 1"),
        (lambda: HMC(1, 0.1, jitter=1.0), "jitter must be in"),
        (lambda: ParallelTempering(MALA(1, 0.1), [1.0], 1), "temperatures must start at 1 and increase"),
        (
            lambda: ParallelTempering(MALA(1, 0.1), [1.0, 3.0, 2.0], 1),
            "temperatures must start at 1 and increase",
        ),
        (
            lambda: ParallelTempering(MALA(1, 0.1), [1.0, 2.0], 1, kernel_steps=0),
            "kernel_steps must be at least 1",
        ),
        (lambda: Masked(MALA(1, 0.1), [True, True]), "at least one coordinate free"),
    ],
)
def test_refusals(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()
