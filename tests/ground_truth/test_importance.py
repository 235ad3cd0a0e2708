"""Importance weights against direct calculation, and normalising constants against quadrature and closed
forms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from lebm.models import EnergyPrior, GaussianMixture, StandardNormal
from lebm.samplers import (
    HMC,
    MALA,
    AnnealedImportanceSampling,
    IndependenceMetropolis,
    Langevin,
    LogZ,
    Masked,
    ParallelTempering,
    PersistentChains,
    Sampler,
    SamplingImportanceResampling,
    resample,
    weight_ess,
)
from tests.ground_truth.monte_carlo import z_scores
from tests.ground_truth.targets import mixture
from tests.models.test_priors import Slope

SHIFT = torch.tensor([0.8, -0.5])


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shifted(z: Tensor) -> Tensor:
    """N(SHIFT, I), unnormalised."""
    return -0.5 * (z - SHIFT.to(z)).square().sum(dim=1)


def test_ess_by_hand() -> None:
    weights = torch.tensor([[1.0, 1.0], [1.0, 0.0], [2.0, 0.0], [4.0, 0.0]]).double()
    torch.testing.assert_close(weight_ess(weights.log() - 1000.0), torch.tensor([64 / 22, 1.0]).double())
    log_weights = torch.randn(50, generator=source()).double()
    w = log_weights.exp()
    torch.testing.assert_close(weight_ess(log_weights), w.sum() ** 2 / (w**2).sum())
    assert weight_ess(torch.full((3,), -torch.inf)).item() == 0
    assert weight_ess(torch.tensor([torch.nan, 0.0, torch.inf])).item() == 1


def test_resampling_frequencies_are_the_normalised_weights() -> None:
    weights = torch.tensor([0.5, 0.0, 2.0, 1.0, 0.5])
    chosen = resample(weights.log().expand(40_000, 5), source())
    one_hot = torch.nn.functional.one_hot(chosen, 5).double()
    assert one_hot[:, 1].sum() == 0
    keep = [0, 2, 3, 4]
    assert z_scores(one_hot[:, keep], (weights / weights.sum())[keep]) < 4


def test_classical_sir_has_its_exact_distribution() -> None:
    """With M candidates the bias is O(1/M); the mean of the chosen one is E[sum w z / sum w], computed here
    directly.
    """
    candidates = 3
    init = torch.randn(60_000, 2, generator=source(), dtype=torch.float64)
    state = SamplingImportanceResampling(candidates)(shifted, init, source(1))
    pool = torch.randn(400_000, candidates, 2, generator=source(2), dtype=torch.float64)
    weights = (pool @ SHIFT.double()).softmax(dim=1)  # pi / q = exp(shift z) up to a constant
    expected = (weights.unsqueeze(2) * pool).sum(dim=1)
    difference = state.mean(0) - expected.mean(0)
    error = (state.var(0) / len(state) + expected.var(0) / len(expected)).sqrt()
    assert (difference / error).abs().max() < 4
    assert z_scores(state, SHIFT.double()) > 4, "three candidates leave a bias that this many rows must see"


@pytest.mark.parametrize("proposal", [None, StandardNormal(2).double()], ids=["default", "component"])
@pytest.mark.parametrize("shared", [False, True])
def test_iterated_sir_has_no_bias(proposal: StandardNormal | None, shared: bool) -> None:
    init = torch.randn(20_000, 2, generator=source(), dtype=torch.float64)
    state, info = SamplingImportanceResampling(8, 8, proposal, shared).run(shifted, init, source(1))
    assert z_scores(state, SHIFT.double()) < 4
    assert z_scores((state - SHIFT).square(), 1.0) < 4
    assert info.extra["ess"].min() >= 1
    assert info.extra["ess"].max() <= 8


def test_ess_of_the_last_transition_is_that_of_its_weights() -> None:
    """With the same density as the proposal all weights are equal."""
    _, info = SamplingImportanceResampling(16).run(
        lambda z: -0.5 * z.square().sum(1), torch.randn(5, 2, generator=source()), source()
    )
    torch.testing.assert_close(info.extra["ess"], torch.full((5,), 16.0).double())


def test_candidates_without_density_are_never_chosen() -> None:
    def half(z: Tensor) -> Tensor:
        return torch.where(z[:, 0] > 0, shifted(z), torch.nan)

    state = SamplingImportanceResampling(32, 3)(half, torch.ones(500, 2), source())
    assert (state[:, 0] > 0).all()
    nowhere, info = SamplingImportanceResampling(4).run(
        lambda z: torch.nan * z.sum(1), torch.ones(5, 2), source()
    )
    assert nowhere.eq(1).all()
    assert info.extra["ess"].eq(0).all()


class Dice(torch.nn.Module):
    """A proposal with three faces, as latents ``(n, 1)`` of 0, 1 and 2."""

    chances = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)

    def reference(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.multinomial(self.chances, n, True, generator=generator).double().unsqueeze(1)

    def log_density(self, z: Tensor) -> Tensor:
        return self.chances.log()[z[:, 0].long()]


def test_independence_metropolis_has_its_exact_distribution() -> None:
    """After two transitions from draws of q, by powers of the transition matrix; and from the target."""
    target = torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)
    log_density = lambda z: target.log()[z[:, 0].long()] + 7.0  # noqa: E731
    weight, n = target / Dice.chances, 40_000
    moves = Dice.chances * (weight[None] / weight[:, None]).clamp(max=1.0)
    matrix = moves + torch.diag(1 - moves.sum(dim=1))
    sampler = IndependenceMetropolis(2, Dice())
    state, info = sampler.run(log_density, Dice().reference(n, source()), source(1))
    expected = Dice.chances @ matrix @ matrix
    faces = torch.arange(3.0)
    assert z_scores((state == faces).double(), expected) < 4
    assert z_scores((state == faces).double(), target) > 4, "two transitions are not enough"
    accepted = 0.5 * (Dice.chances + Dice.chances @ matrix) @ moves.sum(dim=1)
    assert abs(float(info.extra["acceptance"].mean() - accepted)) < 4 * 0.5 / n**0.5
    exact = torch.multinomial(target, n, True, generator=source(2)).double().unsqueeze(1)
    assert z_scores((sampler(log_density, exact, source(3)) == faces).double(), target) < 4


def test_independence_metropolis_accepts_between_gaussians_as_often_as_it_should() -> None:
    """From N(a, I) with N(0, I) as the proposal: 2 Phi(-|a| / sqrt(2)); and the target stays as it is."""
    start = SHIFT.double() + torch.randn(20_000, 2, generator=source(), dtype=torch.float64)
    state, info = IndependenceMetropolis(10).run(shifted, start, source(1))
    assert z_scores(state, SHIFT.double()) < 4
    assert z_scores((state - SHIFT).square(), 1.0) < 4
    expected = math.erfc(float(SHIFT.norm()) / 2)
    assert z_scores(info.extra["acceptance"], expected) < 4


def tilted_mixture() -> EnergyPrior:
    """A mixture tilted by a linear energy: again a mixture, whose parts are shifted and weighed anew."""
    base = GaussianMixture(2, 2).double()
    angle = torch.randn(400, 1, generator=source(), dtype=torch.float64)
    noise = 0.3 * torch.randn(400, 2, generator=source(1), dtype=torch.float64)
    z = noise + angle * torch.tensor([0.8, 0.5]) + torch.tensor([[4.0, 0.0], [-4.0, 1.0]]).repeat(200, 1)
    base.fit(z, source())
    return EnergyPrior(Slope(torch.tensor([0.4, -0.3], dtype=torch.float64)), base)


@pytest.mark.parametrize(
    "make",
    [lambda q: IndependenceMetropolis(40, q), lambda q: SamplingImportanceResampling(16, 8, q)],
    ids=["metropolis", "resampling"],
)
def test_a_tilted_target_proposes_its_base(make: Callable[[GaussianMixture | None], Sampler]) -> None:
    prior = tilted_mixture()
    start = prior.reference(8000, source(3))
    state, info = make(None).run(prior.target(), start, source(4))
    assert torch.equal(make(prior.base)(prior.target(), start, source(4)), state)
    slope, base = prior.tilt.slope, prior.base
    within = base.factor @ base.factor.transpose(1, 2)
    weight = base.log_weight - base.mean @ slope + 0.5 * torch.einsum("i,kij,j->k", slope, within, slope)
    weight, mean = weight.softmax(dim=0), base.mean - within @ slope
    assert z_scores(state, weight @ mean) < 4
    square = within + mean.unsqueeze(2) * mean.unsqueeze(1)
    outer = state.unsqueeze(2) * state.unsqueeze(1)
    assert z_scores(outer, (weight[:, None, None] * square).sum(dim=0)) < 4
    assert z_scores(start, weight @ mean) > 4
    assert 0.3 < info.extra["acceptance"].mean() < 1


def test_a_proposal_without_density_is_never_accepted() -> None:
    half = lambda z: torch.where(z[:, 0] > 0, shifted(z), torch.nan)  # noqa: E731
    state = IndependenceMetropolis(20)(half, torch.full((500, 2), -1.0), source())
    assert (state[:, 0] > 0).all()
    nowhere = lambda z: torch.nan * z.sum(1)  # noqa: E731
    state, info = IndependenceMetropolis(20).run(nowhere, torch.ones(5, 2), source())
    assert state.eq(1).all()
    assert info.extra["acceptance"].eq(0).all()


def energy_tilt_2d() -> tuple[object, float]:
    """Two modes tilting a standard normal; log Z by quadrature."""
    bumps = mixture(2.0).log_density

    def log_density(z: Tensor) -> Tensor:
        return bumps(z) + StandardNormal(2).log_density(z)

    axis = torch.linspace(-9, 9, 1201, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    cell = math.log(float(axis[1] - axis[0])) * 2
    return log_density, float(log_density(grid).logsumexp(0) + cell)


def test_log_z_in_two_dimensions_against_quadrature() -> None:
    log_density, expected = energy_tilt_2d()
    base = StandardNormal(2).double()
    estimator = AnnealedImportanceSampling(MALA(2, 0.8), levels=40)
    samples = SamplingImportanceResampling(64, 10, shared_target=True)(
        log_density, base.reference(1000, source(3)), source(4)
    )
    below, above = estimator.bracket(log_density, base, samples, source())
    for side in (below, above):
        assert side.low < expected < side.high
        assert side.high - side.low < 0.1


@pytest.mark.parametrize("spacing", ["linear", "sigmoid"])
def test_log_z_of_a_gaussian_tilt_in_a_hundred_dimensions(spacing: str) -> None:
    """p0 exp(-E), E = a z + b z^2 / 2 a coordinate: log Z = sum a^2 / (2 (1 + b)) - log(1 + b) / 2."""
    slope = torch.linspace(-0.4, 0.4, 100, dtype=torch.float64)
    bend = torch.linspace(0.0, 2.0, 100, dtype=torch.float64)
    base = StandardNormal(100).double()
    expected = float((slope.square() / (2 * (1 + bend)) - 0.5 * torch.log1p(bend)).sum())

    def log_density(z: Tensor) -> Tensor:
        return base.log_density(z) - z @ slope - 0.5 * z.square() @ bend

    exact = -slope / (1 + bend) + base.reference(200, source(12)) * (1 + bend).rsqrt()
    estimator = AnnealedImportanceSampling(HMC(1, 0.4, leapfrog_steps=3), levels=150, spacing=spacing)
    for side in estimator.bracket(log_density, base, exact, source(11)):
        assert side.low < expected < side.high
        assert side.high - side.low < 1.0
        assert side.ess > 20


def test_the_bounds_are_on_their_sides_of_the_truth() -> None:
    """With few levels the forward mean falls short and the reverse mean overshoots, both by more than the
    other's error.
    """
    base = StandardNormal(20).double()
    log_density = lambda z: base.log_density(z) - 2.0 * z.square().sum(1)  # noqa: E731
    exact = base.reference(50, source(1)) / 5**0.5
    estimator = AnnealedImportanceSampling(MALA(1, 0.3), levels=4)
    below, above = estimator.bracket(log_density, base, exact, source())
    expected = -10 * math.log(5.0)
    assert below.estimate < expected - 0.2
    assert above.estimate > expected + 0.2


def test_one_level_is_plain_importance_sampling() -> None:
    base, target = StandardNormal(2).double(), shifted
    start = base.reference(10, source(1))
    weights, end = AnnealedImportanceSampling(MALA(1, 0.5), levels=1).log_weights(
        target, base.log_density, start, source()
    )
    torch.testing.assert_close(weights, target(start) - base.log_density(start))
    assert torch.equal(end, start)


def test_each_row_can_have_its_own_target() -> None:
    """log p(x) of a linear Gaussian model, three x at once, from the same call."""
    x = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64).repeat(400)
    base = StandardNormal(1).double()
    joint = lambda z: base.log_density(z) - 2.0 * (x - z[:, 0]).square() - 0.5 * math.log(2 * math.pi * 0.25)  # noqa: E731
    weights, _ = AnnealedImportanceSampling(MALA(1, 0.5), levels=20).log_weights(
        joint, base.log_density, base.reference(1200, source()), source(1)
    )
    found = LogZ.from_log_weights(weights.reshape(400, 3), level=0.999)
    expected = torch.distributions.Normal(0.0, math.sqrt(1.25)).log_prob(x[:3])
    assert ((found.low < expected) & (expected < found.high)).all()


def test_intervals_cover_as_often_as_they_say() -> None:
    """Log-normal weights of known mean: 2000 intervals at 90%."""
    weights = 0.3 * torch.randn(200, 2000, generator=source(), dtype=torch.float64)
    for reverse in (False, True):
        found = LogZ.from_log_weights(weights, reverse=reverse, level=0.9)
        truth = (-1 if reverse else 1) * 0.3**2 / 2
        covered = ((found.low < truth) & (truth < found.high)).double()
        assert abs(covered.mean() - 0.9) < 4 * (0.9 * 0.1 / 2000) ** 0.5


def annealed_weights(reverse: bool = False) -> tuple[Tensor, float]:
    """Log-weights ``(64, 400)`` of 400 short annealings to N(0, I / 5) in ten dimensions, and log Z."""
    base = StandardNormal(10).double()
    log_density = lambda z: base.log_density(z) - 2.0 * z.square().sum(1)  # noqa: E731
    start = base.reference(64 * 400, source(1))
    weights, _ = AnnealedImportanceSampling(MALA(1, 0.3), levels=24).log_weights(
        log_density, base.log_density, start / 5**0.5 if reverse else start, source(), reverse=reverse
    )
    return weights.reshape(64, 400), -5 * math.log(5.0)


def log_normal_weights(chains: int, zero: float = 0.0) -> tuple[Tensor, float]:
    """Log-weights of standard deviation 2, of which a share is zero, and the log of the mean weight."""
    weights = 2.0 * torch.randn(chains, 400, generator=source(), dtype=torch.float64)
    lost = torch.rand(chains, 400, generator=source(1)) < zero
    return weights.masked_fill(lost, -torch.inf), 2.0 + math.log1p(-zero)


@pytest.mark.parametrize(
    ("draw", "most"),
    [
        (annealed_weights, 10),
        (partial(log_normal_weights, 64), 10),
        (partial(log_normal_weights, 512), 40),
        (partial(log_normal_weights, 128, zero=0.4), 10),
    ],
)
def test_intervals_cover_where_few_weights_hold_the_sum(
    draw: Callable[[], tuple[Tensor, float]], most: float
) -> None:
    """At most 3 standard errors of a binomial share below 95 %; 400 intervals."""
    weights, truth = draw()
    found = LogZ.from_log_weights(weights, level=0.95)
    assert 3 < found.ess.median() < most
    covered = ((found.low < truth) & (truth < found.high)).double().mean()
    assert covered > 0.95 - 3 * (0.95 * 0.05 / 400) ** 0.5
    assert (found.high - found.low).median() < 4


@pytest.mark.parametrize("spread", [2.2, 2.6])
def test_a_small_share_of_effective_weights_widens_the_interval(spread: float) -> None:
    """Of 20,000 log-normal weights a few hundred are effective in the sample, and far fewer in truth."""
    covered, source = [], torch.Generator().manual_seed(4)
    for _ in range(5):
        weights = spread * torch.randn(20_000, 40, dtype=torch.float64, generator=source)
        found = LogZ.from_log_weights(weights)
        assert (found.ess >= 100).any()
        covered.append((found.low < spread**2 / 2) & (spread**2 / 2 < found.high))
    assert torch.cat(covered).double().mean() > 0.95 - 3 * (0.95 * 0.05 / 200) ** 0.5


def test_weights_of_zero_are_a_share_of_the_mean() -> None:
    """Of the same weights, a tenth beside nine tenths of zeros has a mean that is ten times as small."""
    weights, _ = log_normal_weights(64)
    whole = LogZ.from_log_weights(weights)
    tenth = LogZ.from_log_weights(torch.cat([weights, torch.full((9 * 64, 400), -torch.inf)]))
    for end in ("low", "estimate", "high"):
        gap = (getattr(whole, end) - getattr(tenth, end)).median()
        assert gap == pytest.approx(math.log(10), abs=0.05), end


def test_the_upper_end_from_above_covers_where_few_weights_hold_the_sum() -> None:
    weights, truth = annealed_weights(reverse=True)
    found = LogZ.from_log_weights(weights, reverse=True, level=0.95)
    assert found.ess.median() < 30
    assert (truth < found.high).double().mean() > 0.975 - 3 * (0.975 * 0.025 / 400) ** 0.5


def test_refusals() -> None:
    with pytest.raises(ValueError, match="Langevin is biased"):
        AnnealedImportanceSampling(Langevin(1, 0.1))
    tempering = ParallelTempering(MALA(1, 0.1), [1.0, 4.0], 1)  # starts its hot replicas anew
    for kernel in (
        tempering,
        PersistentChains(MALA(1, 0.1)),
        Masked(PersistentChains(MALA(1, 0.1)), [False]),
    ):
        with pytest.raises(ValueError, match=f"{type(kernel).__name__} is biased or does not start"):
            AnnealedImportanceSampling(kernel)
    with pytest.raises(ValueError, match="levels must be at least 1"):
        AnnealedImportanceSampling(MALA(1, 0.1), levels=0)
    with pytest.raises(ValueError, match="spacing must be"):
        AnnealedImportanceSampling(MALA(1, 0.1), spacing="cubic")
    with pytest.raises(ValueError, match="all annealed importance weights are zero"):
        LogZ.from_log_weights(torch.full((3,), torch.nan))
    with pytest.raises(ValueError, match="weights must be at least 2"):
        LogZ.from_log_weights(torch.zeros(1))
    with pytest.raises(ValueError, match="candidates must be at least 2"):
        SamplingImportanceResampling(1)
