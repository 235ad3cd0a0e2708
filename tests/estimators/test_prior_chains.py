"""Draws of a prior from its base without a chain of small steps, and when there are none."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

from lebm.estimators import AdamGroups, FitBase, FixedStages, LatentMLE, MultiStageNCE
from lebm.models import (
    Energy,
    EnergyPrior,
    GaussianLikelihood,
    GaussianMixture,
    MLPEnergy,
    RatioPrior,
    RatioProduct,
)
from lebm.samplers import Langevin, Noise
from tests.estimators.linear_gaussian import LinearGenerator
from tests.models.test_mixture import blobs
from tests.models.test_priors import Slope


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Waves(Energy):
    """A bounded energy of two coordinates, with many hills."""

    latent_dim = 2

    def forward(self, z: Tensor) -> Tensor:
        return (2 * z[:, 0]).sin() * (1.5 * z[:, 1]).cos() + 0.5 * torch.tanh(z[:, 0])


def base() -> GaussianMixture:
    made = GaussianMixture(2, 3)
    made.fit(blobs(3, 2, 100, spread=1.5).float(), source())
    return made


def over(rule: FitBase | None = None) -> FitBase | None:
    """A rule whose fits are over."""
    rule = FitBase(1) if rule is None else rule
    rule.set_extra_state({"steps": rule.at[-1], "latents": torch.zeros(0)})
    return rule


def model_of(energy: nn.Module, **changed: Any) -> LatentMLE:
    return LatentMLE(
        GaussianLikelihood(LinearGenerator(2, 4), 0.5),
        EnergyPrior(energy, base()),  # type: ignore[arg-type]
        Langevin(7, 0.2),
        Langevin(5, 0.1),
        AdamGroups({"generator": 1e-3} | ({"energy": 1e-3} if list(energy.parameters()) else {})),
        **{"fit_base": over(), **changed},
    )


def test_there_are_none_without_a_fitted_base_or_with_useless_weights() -> None:
    assert model_of(Waves()).direct_draws() is not None
    assert model_of(Waves(), fit_base=None).direct_draws() is None
    assert model_of(Waves(), fit_base=FitBase(1)).direct_draws() is None, "exact draws until the fit"
    for energy in (Slope(torch.tensor([3.0, 3.0])), Slope(torch.tensor([torch.nan, 0.0]))):
        model = model_of(energy)
        assert model.direct_draws() is None
        assert "direct_draws" not in model.chain_settings


def test_the_share_and_the_steps_are_those_of_the_weights() -> None:
    flat = model_of(Slope(torch.zeros(2))).direct_draws()
    assert flat is not None
    assert flat[1] == pytest.approx(1)
    assert flat[0].steps == 5, "(1 - 1 / 1)^t is zero at once; exp(-t) is .01 after 4.6 steps"
    # a bounded energy whose largest weight and moments a grid gives
    model = model_of(Waves())
    found = model.direct_draws()
    assert found is not None
    z, chance = grid(model.prior.base)
    weight = (-model.prior.energy(z)).exp()
    mean = chance @ weight
    assert found[1] == pytest.approx(float(mean**2 / (chance @ weight**2)), abs=0.03)
    bound = math.ceil(math.log(100) * float(weight.max() / mean))
    assert bound - 3 <= found[0].steps <= bound
    settings = model.chain_settings["direct_draws"]
    assert settings == {"steps": found[0].steps, "effective_share": found[1]}


def grid(density: Any, cells: int = 480) -> tuple[Tensor, Tensor]:
    """Points in the plane and the chances of their cells under a density."""
    axis = (torch.arange(cells) + 0.5) / cells * 24 - 12
    z = torch.cartesian_prod(axis, axis)
    return z, density.log_density(z).double().softmax(dim=0).float()


def test_draws_follow_the_tilted_density_in_the_plane() -> None:
    model, n = model_of(Waves()), 6000
    drawn = model.sample_latent(n, generator=source(1))
    z, chance = grid(model.prior)
    edges = torch.linspace(-5, 5, 6)

    def cell(at: Tensor) -> Tensor:
        return torch.bucketize(at[:, 0].contiguous(), edges) * 7 + torch.bucketize(
            at[:, 1].contiguous(), edges
        )

    expected = torch.zeros(49).scatter_add_(0, cell(z), chance)
    keep = expected * n > 20
    observed = cell(drawn).bincount(minlength=49)

    def p_value(counts: Tensor) -> float:
        seen, due = counts[keep].double(), expected[keep].double()
        return float(chisquare(seen, due / due.sum() * seen.sum()).pvalue)

    assert p_value(observed) > 1e-3
    plain = cell(model.prior.reference(n, source(1))).bincount(minlength=49)
    assert p_value(plain) < 1e-6, "the energy can be seen in these cells"
    assert (drawn.abs() < 12).all()


def test_a_number_of_steps_asks_for_the_chain() -> None:
    model = model_of(Waves())
    start = model.prior.reference(4, source())
    assert torch.equal(model.sample_latent(4, steps=0, generator=source()), start)
    generator = source()
    chain = Langevin(3, 0.2)(model.prior.target(), model.prior.reference(4, generator), generator)
    assert torch.equal(model.sample_latent(4, steps=3, generator=source()), chain)
    assert not torch.equal(model.sample_latent(4, generator=source()), chain)


def test_direct_draws_do_not_depend_on_the_number_of_processes() -> None:
    model = model_of(Waves())
    whole = model.sample_latent(8, generator=Noise.shards(0, "draw", shards=4))
    halves = [
        model.sample_latent(4, generator=Noise.shards(0, "draw", shards=4, rank=rank, world_size=2))
        for rank in range(2)
    ]
    torch.testing.assert_close(torch.cat(halves), whole)


def test_answers_leave_no_trace_in_a_model_that_trains() -> None:
    torch.manual_seed(0)
    model = model_of(MLPEnergy(2, [8], spectral_norm=True)).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    state = torch.get_rng_state()
    assert model.direct_draws() is not None
    model.sample_latent(4, generator=source())
    assert model.chain_settings["direct_draws"]
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.named_buffers():
        assert torch.equal(value, before[name]), name
    assert all(module.training for module in model.prior.modules())


def test_stages_are_drawn_directly_too() -> None:
    def staged(rule: FitBase | None) -> MultiStageNCE:
        torch.manual_seed(0)
        return MultiStageNCE(
            GaussianLikelihood(LinearGenerator(2, 4), 0.5),
            RatioPrior(RatioProduct(MLPEnergy(2, [8], output_bias=True), 2), base()),
            Langevin(7, 0.2),
            Langevin(5, 0.1),
            AdamGroups({"generator": 1e-3, "energy": 1e-3}),
            stages=FixedStages(4),
            through_stages=True,
            fit_base=rule,
        )

    waits = staged(FitBase(1))
    assert torch.equal(waits.sample_latent(5, generator=source()), waits.prior.base.reference(5, source()))
    model = staged(over())
    nn.init.normal_(model.prior.tilt.active.net[-1].weight)
    direct = model.direct_draws()
    assert direct is not None
    generator = source()
    start = model.prior.reference(5, generator)
    expected = direct[0](model.prior.target(), start, generator)
    assert torch.equal(model.sample_latent(5, generator=source()), expected)
    assert not torch.equal(model.sample_latent(5, steps=7, generator=source()), expected)
