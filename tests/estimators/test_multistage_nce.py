"""MultiStageNCE: its update restated, its chains, and what a switch must leave alone."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from lebm.checkpoint.rebuild import build
from lebm.component import describe
from lebm.estimators import AdamGroups, AdaptiveStages, FixedStages, MultiStageNCE
from lebm.estimators.latent_model import LatentModel
from lebm.models import GaussianLikelihood, GaussianMixture, MLPEnergy, MLPGenerator, RatioPrior, RatioProduct
from lebm.samplers import MALA, AnnealedImportanceSampling, Langevin, PersistentChains
from tests.estimators.linear_gaussian import LinearGenerator

RATES = {"generator": 1e-3, "energy": 2e-3}
TWO_LOG_TWO = 2 * math.log(2)


def small_model(
    stages=None, max_stages: int = 3, prior_sampler=None, optimizer=None, prior=None, **kwargs
) -> MultiStageNCE:
    torch.manual_seed(1)
    network = MLPEnergy(3, hidden=[12, 12], output_bias=True)
    return MultiStageNCE(
        GaussianLikelihood(MLPGenerator(3, [1, 4, 4], hidden=[16]), sigma=0.3),
        prior or RatioPrior(RatioProduct(network, max_stages)),
        prior_sampler=prior_sampler or Langevin(6, 0.4),
        posterior_sampler=Langevin(5, 0.1),
        optimizer=optimizer or AdamGroups(RATES),
        stages=stages or FixedStages(4),
        **kwargs,
    )


def batch_of(x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"x": x, "index": torch.arange(len(x))}


def images(n: int = 8, **place) -> torch.Tensor:
    return (
        torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=place.get("dtype")) * 2 - 1
    )


class Training:
    """The optimiser steps of a model without a Trainer."""

    def __init__(self, model: MultiStageNCE) -> None:
        self.model, self.number = model, 0
        self.optimizer, _ = model.optimizer_settings.build(model.networks(), fused=True)

    def step(self, x: torch.Tensor):
        self.optimizer.zero_grad()
        self.model.loss(batch_of(x), self.number).backward()
        self.optimizer.step()
        self.number += 1
        return self.model.after_step(self.optimizer)


def test_one_stage_equals_plain_noise_contrastive_estimation_step_for_step():
    """Restated with torch's own cross-entropy, labels and two Adams; negatives are exact draws of N(0, I)."""
    x = images(dtype=torch.float64)
    ours, theirs = small_model(FixedStages(100), max_stages=1).double(), small_model(max_stages=1).double()
    generator, classifier = theirs.likelihood.generator, theirs.prior.tilt.active
    adam_g = torch.optim.Adam(generator.parameters(), lr=RATES["generator"], betas=(0.5, 0.999))
    adam_e = torch.optim.Adam(classifier.parameters(), lr=RATES["energy"], betas=(0.5, 0.999))
    training = Training(ours)
    for step in range(12):
        noise = ours.noise("posterior", step)
        z, kicks = (
            noise.normal((8, 3), dtype=torch.float64),
            noise.normal((8, 3), steps=5, dtype=torch.float64),
        )
        for kick in kicks:
            z = z.detach().requires_grad_()
            potential = ((x - generator(z)) ** 2).sum() / (2 * 0.3**2) + (z**2).sum() / 2
            z = z - 0.1**2 / 2 * torch.autograd.grad(potential, z)[0] + 0.1 * kick
        negatives = ours.noise("prior", step).normal((8, 3), dtype=torch.float64)
        adam_g.zero_grad(), adam_e.zero_grad()
        (((x - generator(z.detach())) ** 2).sum() / (2 * 0.3**2) / 8).backward()
        logits = -classifier(torch.cat([z.detach(), negatives]))
        labels = torch.cat([torch.ones(8), torch.zeros(8)]).double()
        (2 * binary_cross_entropy_with_logits(logits, labels)).backward()
        adam_g.step(), adam_e.step()
        assert training.step(x) is None
    for (name, mine), its in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-11, msg=name)
    assert not torch.equal(
        classifier.net[0].weight, small_model(max_stages=1).double().prior.tilt.active.net[0].weight
    )


def test_chains_run_through_the_finished_stages_only():
    model, x = small_model(), images()

    def chains() -> tuple[torch.Tensor, torch.Tensor]:
        z = model.infer(x, {"x": x}, 0).z
        return z, model.negatives(8, 0)

    before = chains()
    assert torch.equal(before[1], model.prior.reference(8, model.noise("prior", 0)))  # exact in stage 1
    with torch.no_grad():
        for parameter in model.prior.tilt.active.parameters():
            parameter.add_(0.3)
    for got, want in zip(chains(), before, strict=True):
        assert torch.equal(got, want)
    model.prior.tilt.switch()
    for got, want in zip(chains(), before, strict=True):
        assert not torch.equal(got, want)
    # and no gradient reaches the samples or comes back from a chain
    model.loss(batch_of(x), 0).backward()
    alone = torch.autograd.grad(
        -model.likelihood.log_prob(x, chains()[0]).mean(), list(model.likelihood.parameters())
    )
    for parameter, gradient in zip(model.likelihood.parameters(), alone, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_switch_clears_the_moments_and_frozen_slots_stay_bit_equal():
    momentum = AdamGroups(RATES, betas=(0.9, 0.999), weight_decay={"energy": 0.1, "generator": 0.1})
    model, x = small_model(FixedStages([6, 1000]), optimizer=momentum), images()
    training = Training(model)
    parameters = list(model.parameters())
    records = [training.step(x) for _ in range(6)]
    assert [record is not None for record in records] == [False] * 5 + [True]
    assert model.prior.tilt.finished == 1
    assert model.stage == 2
    for parameter in model.prior.tilt.active.parameters():
        assert all(not moment.any() for moment in training.optimizer.state[parameter].values())
    assert any(
        moment.any() for moment in training.optimizer.state[next(model.likelihood.parameters())].values()
    )
    frozen = {name: buffer.clone() for name, buffer in model.prior.tilt.named_buffers()}
    assert any(buffer[0].any() for buffer in frozen.values())
    moved = model.prior.tilt.active.net[0].weight.clone()
    for _ in range(100):
        assert training.step(x) is None
    for name, buffer in model.prior.tilt.named_buffers():
        assert torch.equal(buffer, frozen[name]), name
    assert not torch.equal(model.prior.tilt.active.net[0].weight, moved)
    assert all(now is then for now, then in zip(model.parameters(), parameters, strict=True))


def test_the_last_stage_ends_the_method_and_the_classifier_rests():
    annealing = AnnealedImportanceSampling(MALA(1, 0.5), 5)
    model, x = small_model(FixedStages(3), max_stages=2, annealing=annealing, annealing_chains=50), images()
    training = Training(model)
    for _ in range(6):
        training.step(x)
    assert model.stages.ended
    assert [record.stage for record in model.stages.history] == [1, 2]
    assert sorted(model.prior.constants) == [1, 2]
    z = torch.randn(5, 3)
    raw, constant = model.prior.log_density(z), model.prior.log_constant()
    torch.testing.assert_close(model.prior.log_prob(z), raw - constant.estimate)
    assert constant.low < constant.estimate < constant.high
    state = {name: parameter.clone() for name, parameter in model.prior.named_parameters()}
    assert training.step(x) is None
    assert all(torch.equal(parameter, state[name]) for name, parameter in model.prior.named_parameters())
    assert all(
        parameter.grad is not None for parameter in model.parameters()
    )  # a data-parallel wrapper wants all of them


@pytest.mark.slow
def test_learns_a_known_prior_that_one_step_of_a_chain_cannot_hold():
    """A linear-Gaussian model with its true generator: the learned prior's mean, spread and constant are the
    true ones.
    """
    torch.manual_seed(0)
    mean, spread, sigma = torch.tensor([2.5, -1.5]), 0.5, 0.2
    generator = LinearGenerator(2, 4)
    with torch.no_grad():
        generator.linear.weight.copy_(torch.linalg.qr(torch.randn(4, 2)).Q)
    model = MultiStageNCE(
        GaussianLikelihood(generator, sigma),
        RatioPrior(RatioProduct(MLPEnergy(2, [32, 32], output_bias=True), 4)),
        prior_sampler=PersistentChains(Langevin(5, 0.3), slots=2),
        posterior_sampler=Langevin(20, 0.18),
        optimizer=AdamGroups({"energy": 5e-3}, betas=(0.9, 0.99)),
        stages=FixedStages(100),
        annealing=AnnealedImportanceSampling(MALA(2, 0.5), 20),
        update_generator_in_stage=False,
    )
    weight = generator.linear.weight.clone()
    training = Training(model)
    while not model.stages.ended:
        z = mean + spread * torch.randn(200, 2)
        training.step(generator(z).detach() + sigma * torch.randn(200, 4))
    assert torch.equal(generator.linear.weight, weight)
    model.eval()
    drawn = model.prior_sampler(model.prior.target(), torch.randn(4000, 2), steps=200)
    # The posterior chain starts under the prior so far and its steps are biased a little, hence a tenth of a
    # unit.
    assert (drawn.mean(0) - mean).abs().max() < 0.1
    assert (drawn.std(0) - spread).abs().max() < 0.1
    truth = torch.distributions.Normal(mean, spread)
    z = truth.sample((4000,))
    divergence = (truth.log_prob(z).sum(1) - model.prior.log_prob(z)).mean()
    assert abs(divergence) < 0.15
    raw = (truth.log_prob(z).sum(1) - model.prior.log_density(z)).mean()
    assert raw - divergence == pytest.approx(-float(model.prior.log_constant().estimate), abs=1e-3)


def test_components_keep_their_shares_at_the_end_of_every_stage() -> None:
    """A ratio ``exp(-c_k)`` in component k would change the shares from ``w_k`` to ``w_k exp(-c_k)``."""
    z = 20 * torch.arange(3.0).repeat_interleave(200).unsqueeze(1) + torch.randn(600, 3)
    z = z[:450]

    def ended(**arguments: bool) -> MultiStageNCE:
        base = GaussianMixture(3, components=3)
        base.fit(z, torch.Generator().manual_seed(0))
        network = MLPEnergy(3, hidden=[], output_bias=True)
        annealing = AnnealedImportanceSampling(MALA(1, 0.5), 2)
        prior = RatioPrior(RatioProduct(network, 2), base)
        model = small_model(prior=prior, annealing=annealing, annealing_chains=50, **arguments)
        optimizer, _ = model.optimizer_settings.build(model.networks(), fused=True)
        for slope in (0.006, -0.003):  # no change is limited
            with torch.no_grad():
                network.net[-1].weight.fill_(slope)
            for _ in range(4):
                model.after_step(optimizer)
        assert model.prior.tilt.finished == 2
        return model

    model, shifted = ended(), ended(keep_shares=False)
    assert sorted(model.prior.constants) == [2], "log Z of one stage belongs to the former weights"
    assert sorted(shifted.prior.constants) == [1, 2]
    base, fitted = model.prior.base, shifted.prior.base
    labels = fitted.joint(fitted.mean).argmax(dim=1)
    assert labels.tolist() == [0, 1, 2], "components without overlap"

    def shares(of: MultiStageNCE) -> torch.Tensor:
        drawn = of.prior.base.reference(100_000, torch.Generator().manual_seed(1))
        weights = (-of.prior.energy(drawn)).exp().detach()
        part = fitted.joint(drawn).argmax(dim=1)
        return torch.stack([weights[part == k].sum() for k in range(3)]) / weights.sum()

    wanted, error = fitted.log_weight.exp(), 4 * (0.25 / 100_000) ** 0.5 + 0.01  # 0.01: 4,096 samples each
    assert float((shares(model) - wanted).abs().max()) < error
    assert float((shares(shifted) - wanted).abs().max()) > 3 * error
    assert torch.equal(base.mean, fitted.mean)


def test_an_empty_pool_starts_from_the_reference():
    model = small_model(FixedStages(2), prior_sampler=PersistentChains(Langevin(0, 0.1), slots=1))
    x, training = images(), Training(model)
    for _ in range(2):
        training.step(x)
    assert torch.equal(model.negatives(8, 2), model.prior.reference(8, model.noise("prior", 2)))
    second = model.negatives(8, 3)  # a chain of no steps goes on where it was
    assert torch.equal(second, model.prior.reference(8, model.noise("prior", 2)))
    assert torch.isfinite(model.loss(batch_of(x), 3))


def test_rules_and_settings_out_of_range_are_named():
    for arguments, message in (
        ({"held_out": 0}, "held_out >= 2"),
        ({"held_out": 1}, "held_out must be 0"),
        ({"min_steps": 10, "max_steps": 5}, "min_steps <= max_steps"),
    ):
        with pytest.raises(ValueError, match=message):
            AdaptiveStages(**arguments)
    with pytest.raises(ValueError, match="at least 1 step each"):
        FixedStages([5, 0])
    with pytest.raises(ValueError, match="annealing_chains"):
        small_model(annealing_chains=1)
    with pytest.raises(ValueError, match="no network 'generator'"):
        small_model(update_generator_in_stage=False)


def test_a_description_rebuilds_the_model_with_its_stages():
    model, x = small_model(AdaptiveStages(min_steps=3, window=3, max_steps=3)), images()
    training = Training(model)
    for _ in range(5):
        training.step(x)
    other = build(describe(model), LatentModel)
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    assert other.stages.history == model.stages.history
    assert (other.stage, other.stages.steps, other.prior.tilt.finished) == (
        model.stage,
        model.stages.steps,
        model.prior.tilt.finished,
    )
    z = torch.randn(4, 3)
    assert torch.equal(other.prior.log_density(z), model.prior.log_density(z))
    torch.testing.assert_close(
        other.anomaly_score(x, generator=torch.Generator().manual_seed(0)),
        model.anomaly_score(x, generator=torch.Generator().manual_seed(0)),
    )


def test_fresh_chains_through_the_stages_go_on_from_product_to_product() -> None:
    model = small_model(through_stages=True).eval()
    for _ in range(2):
        torch.nn.init.normal_(model.prior.tilt.active.net[-1].weight)
        model.prior.tilt.switch()
    torch.nn.init.normal_(model.prior.tilt.active.net[-1].weight)  # a third stage is in training
    index, kernel = torch.arange(5), Langevin(1, 0.4)
    noise = model.sample_noise("sample", index)
    expected = model.prior.reference(5, noise)
    targets = [model.prior.log_density_after(1), model.prior.log_density_after(2), model.prior.target()]
    for target, steps in zip(targets, (3, 3, 4), strict=True):
        expected = kernel(target, expected.detach(), noise, steps=steps)
    drawn = model.sample_latent(5, steps=10, generator=model.sample_noise("sample", index))
    assert torch.equal(drawn, expected.detach())
    alone = model.sample_latent(1, steps=10, generator=model.sample_noise("sample", index[3:4]))
    torch.testing.assert_close(alone, drawn[3:4])


def test_fresh_chains_through_the_stages_reach_the_last_product() -> None:
    """Linear logits move the mean of N(0, I) and nothing else, so the products are known."""
    shifts = torch.tensor([[1.5, 0.0], [0.0, -1.0], [0.5, 0.5]])
    model = MultiStageNCE(
        GaussianLikelihood(LinearGenerator(2, 4), 0.5),
        RatioPrior(RatioProduct(MLPEnergy(2, hidden=[], output_bias=True), max_stages=3)),
        MALA(30, 1.0),
        Langevin(5, 0.1),
        AdamGroups(RATES),
        stages=FixedStages(4),
        through_stages=True,
    )
    for shift in shifts:
        with torch.no_grad():
            model.prior.tilt.active.net[-1].weight.copy_(-shift[None])
        model.prior.tilt.switch()
    drawn = model.sample_latent(4000, generator=torch.Generator().manual_seed(0))
    error = 4 * 4000**-0.5  # four standard errors of a mean
    assert (drawn.mean(0) - shifts.sum(0)).abs().max() < error
    assert (drawn.var(0) - 1).abs().max() < error * 2**0.5
    fresh = model.sample_latent(4000, steps=0, generator=torch.Generator().manual_seed(0))
    assert fresh.mean(0).abs().max() < error  # without steps: draws of the reference
