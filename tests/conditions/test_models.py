"""Draws of models given a condition, against exact posteriors and against weighted draws of the prior."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lebm.conditions import ClassCondition, Near, Observed
from lebm.errors import UserNotice
from lebm.estimators import AdamGroups, LatentMLE
from lebm.estimators.latent_model import LatentModel
from lebm.models import ClassEnergy, EnergyPrior, GaussianLikelihood
from lebm.samplers import MALA, ParallelTempering
from tests.distributed import run_processes
from tests.estimators.hierarchical_models import conditional
from tests.estimators.linear_gaussian import LinearGenerator, QuadraticEnergy, posterior
from tests.estimators.test_dual_mcmc import small

D, SIZE, SIGMA = 3, 6, 0.4
SEEN = torch.tensor([1, 1, 1, 0, 0, 0], dtype=torch.bool)


def label_loss(rows: slice) -> Tensor:
    torch.manual_seed(0)
    model = linear_model()[0]
    model.prior.tilt = ClassEnergy(D, 2, hidden=[]).double()
    z, labels = torch.randn(8, D, dtype=torch.float64), torch.tensor([1, -1, -1, -1, 0, 1, 1, 0])
    return model.label_loss(z[rows], {"label": labels[rows]}).detach()


def test_the_labels_of_a_batch_may_be_spread_unevenly_over_processes() -> None:
    whole = label_loss(slice(8))
    parts = run_processes(_label_loss_of_half, world_size=2)
    torch.testing.assert_close(sum(parts) / 2, whole)


def _label_loss_of_half() -> Tensor:
    rank = torch.distributed.get_rank()
    return label_loss(slice(4 * rank, 4 * rank + 4))


def linear_model() -> tuple[LatentMLE, Tensor, Tensor, Tensor]:
    """A model with the tilted Gaussian prior ``N(mean, covariance)``, and its weight, mean and covariance."""
    torch.manual_seed(0)
    generator, energy = LinearGenerator(D, SIZE), QuadraticEnergy(D)
    with torch.no_grad():
        generator.linear.weight.copy_(torch.randn(SIZE, D))
        energy.matrix.copy_(torch.diag(torch.tensor([1.0, 0.0, -0.5])))
        energy.vector.copy_(torch.tensor([1.0, -1.0, 0.0]))
    rates = AdamGroups({"generator": 1e-3, "energy": 1e-3})
    model = LatentMLE(
        GaussianLikelihood(generator, SIGMA), EnergyPrior(energy), MALA(60, 0.7), MALA(20, 0.3), rates
    ).double()
    return model, generator.linear.weight.detach(), *(part.detach() for part in energy.prior())


@pytest.mark.parametrize("sigma", [None, 0.05])
def test_an_observation_gives_the_posterior_of_a_linear_gaussian_model(sigma: float | None) -> None:
    model, weight, mean, covariance = linear_model()
    x = torch.tensor([1.0, -0.5, 2.0, 9.0, 9.0, 9.0], dtype=torch.float64)
    n = 2000
    drawn = model.sample_given(
        n, Observed(x, SEEN, sigma), generator=torch.Generator().manual_seed(0), candidates=8
    )
    exact, shared = posterior(x[None, :3], weight[:3], sigma or SIGMA, mean, covariance)
    # Twice the standard errors of independent draws: the particles are a second sample.
    error = (shared.diagonal() / n).sqrt()
    assert float(((drawn.z.mean(dim=0) - exact[0]) / error).abs().max()) < 6
    scale = shared.diagonal().sqrt()
    correlation = (torch.cov(drawn.z.T) - shared) / scale / scale[:, None]
    assert float(correlation.abs().max()) < 6 * math.sqrt(2 / n)
    assert drawn.met.double().mean() > 0.95
    assert model.sample(7, given=Observed(x, SEEN, sigma)).shape == (7, SIZE)


def test_the_hidden_coordinates_have_uniform_ranks() -> None:
    """Of 400 draws of the model with half hidden, ranks of the truth among 9 completions, by chi squared."""
    model, weight, mean, covariance = linear_model()
    generator = torch.Generator().manual_seed(2)
    cases, others = 400, 9
    z = (
        mean
        + torch.randn(cases, D, generator=generator, dtype=torch.float64)
        @ torch.linalg.cholesky(covariance).T
    )
    clean = z @ weight.T
    x = clean + SIGMA * torch.randn(cases, SIZE, generator=generator, dtype=torch.float64)
    drawn = model.sample(cases * others, given=Observed(x, SEEN), generator=generator)
    for hidden in (3, 4, 5):
        ranks = (drawn[:, hidden].reshape(cases, others) < clean[:, hidden, None]).sum(dim=1)
        counts = torch.bincount(ranks, minlength=others + 1).double()
        statistic = ((counts - cases / 10).square() / (cases / 10)).sum()
        assert float(statistic) < 27.9, counts  # the 0.999 quantile with 9 degrees of freedom


@pytest.mark.parametrize("name", ["noise", "latent", "dual"])
def test_models_agree_with_their_weighted_prior_draws(name: str) -> None:
    model: LatentModel = small() if name == "dual" else conditional("variational", space=name)
    model.prior_sampler = MALA(60, 0.8)  # the draws of the prior must be those of its density
    if name == "noise":  # latents that are far from their noise
        for parameter in model.prior.base.parameters():
            parameter.data.mul_(2)
    model.eval()
    generator = torch.Generator().manual_seed(0)
    kind = model.dtype
    pull = torch.linspace(-1, 1, model.latent_dim, dtype=kind)
    given = ClassCondition(lambda z: torch.stack([2 * z @ pull, 0 * z[:, 0]], dim=1), 0, classes=2)
    drawn = model.sample_latent(2000, given=given & Near(pull, sigma=1.5), generator=generator)
    prior = model.sample_latent(16_000, generator=generator)
    weights = (given & Near(pull, sigma=1.5))(prior).softmax(dim=0)
    expected, share = weights @ prior, float(1 / weights.square().sum())
    assert share > 300
    error = drawn.std(dim=0) * math.sqrt(1 / share + 2 / 2000)
    assert float(((drawn.mean(dim=0) - expected) / error).abs().max()) < 4
    assert float((expected - prior.mean(dim=0)).abs().max()) > 0.3  # the condition matters


def test_draws_repeat_by_their_generator_and_leave_the_model_alone() -> None:
    model = linear_model()[0].train()
    state = torch.get_rng_state()
    first, second = (
        model.sample_latent(5, given=Near(torch.ones(D)), generator=torch.Generator().manual_seed(4))
        for _ in range(2)
    )
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert model.likelihood.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_condition_that_the_draws_do_not_meet_gives_one_line() -> None:
    model = linear_model()[0]
    x = torch.zeros(SIZE).double()
    x[0], x[1] = 1.0, -1.0
    twice = Observed(x, SEEN, sigma=0.1) & Observed(-x, SEEN, sigma=0.1)
    with pytest.warns(
        UserNotice, match=r"^0 of 50 samples meet the condition, which .*\(acceptance 0\.\d\d, "
    ):
        model.sample(50, given=twice, generator=torch.Generator().manual_seed(0))


def test_class_draws_of_an_energy_with_classes_are_gaussian() -> None:
    """``p(z | y)`` of a linear ``f`` is ``N(a_y, I)``, and the shares of the classes are known."""
    torch.manual_seed(0)
    energy = ClassEnergy(2, 3, hidden=[])
    with torch.no_grad():
        energy.net[0].weight.copy_(torch.tensor([[-2.0, 0.0], [1.0, 1.0], [1.0, -2.0]]))
        energy.net[0].bias.zero_()
    rates = AdamGroups({"generator": 1e-3, "energy": 1e-3})
    model = LatentMLE(
        GaussianLikelihood(LinearGenerator(2, SIZE), SIGMA),
        EnergyPrior(energy),
        ParallelTempering(MALA(3, 0.8), [1.0, 3.0], 30),
        MALA(20, 0.3),
        rates,
    )
    shares = (energy.net[0].weight.square().sum(dim=1) / 2).softmax(dim=0).detach()
    for label, centre in enumerate(energy.net[0].weight.detach()):
        given = ClassCondition(energy.logits, label, energy.classes)
        drawn = model.sample_given(1000, given, generator=torch.Generator().manual_seed(label))
        assert float((drawn.z.mean(dim=0) - centre).abs().max()) < 5 * math.sqrt(2 / 1000)
        assert float((drawn.z.var(dim=0) - 1).abs().max()) < 5 * math.sqrt(2 * 2 / 1000)
        assert abs(float(drawn.log_evidence.exp()) - float(shares[label])) < 0.05


def test_labelled_rows_alone_teach_the_classes() -> None:
    model = linear_model()[0]
    model.prior.tilt = ClassEnergy(D, 2, hidden=[], label_weight=3.0).double()
    z = torch.randn(4, D, dtype=torch.float64)
    labels = torch.tensor([1, -1, 0, -1])
    logits = model.prior.tilt.logits(z).log_softmax(dim=1)
    expected = -3 * (logits[0, 1] + logits[2, 0]) / 2
    torch.testing.assert_close(model.label_loss(z, {"label": labels}), expected)
    for batch in ({"label": torch.full((4,), -1)}, {}):
        assert float(model.label_loss(z, batch).detach()) == 0.0
    batch = {"x": torch.randn(4, SIZE, dtype=torch.float64), "index": torch.arange(4)}
    model.seed = 1
    losses = [model.loss(batch | extra, 0) for extra in ({}, {"label": labels})]
    z = model.infer(model.observations(batch), batch, 0).z
    torch.testing.assert_close(losses[1] - losses[0], model.label_loss(z, {"label": labels}))
