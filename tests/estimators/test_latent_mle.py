"""LatentMLE against closed forms and against an independent re-statement of the published update."""

from __future__ import annotations

import pytest
import torch

from lebm.estimators import AdamGroups, LatentMLE
from lebm.models import EnergyPrior, GaussianLikelihood, MLPEnergy, MLPGenerator, StandardNormal
from lebm.samplers import Langevin, Noise
from tests.estimators.linear_gaussian import LinearGenerator, QuadraticEnergy, marginal, posterior

RATES = {"generator": 1e-3, "energy": 2e-4}


def batch_of(x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"x": x, "index": torch.arange(len(x))}


def small_model(scale_likelihood: bool = True, **kwargs) -> LatentMLE:
    torch.manual_seed(1)
    return LatentMLE(
        GaussianLikelihood(MLPGenerator(3, [1, 4, 4], hidden=[16]), sigma=0.3),
        EnergyPrior(MLPEnergy(3, hidden=[12, 12])),
        prior_sampler=Langevin(6, 0.4),
        posterior_sampler=Langevin(5, 0.1),
        optimizer=AdamGroups(RATES),
        scale_likelihood=scale_likelihood,
        **kwargs,
    )


def published_step(
    x, generator, energy, start_post, noise_post, start_prior, noise_prior, sigma=0.3, s_post=0.1, s_prior=0.4
):
    """The released update, written anew in its own terms: potentials, a squared error without 1/(2 sigma^2),
    two Adams.
    """
    z = start_post.clone()
    for eps in noise_post:
        z = z.detach().requires_grad_()
        potential = ((x - generator(z)) ** 2).sum() / (2 * sigma**2) + energy(z).sum() + (z**2).sum() / 2
        z = z - s_post**2 / 2 * torch.autograd.grad(potential, z)[0] + s_post * eps
    z_post = z.detach()
    z = start_prior.clone()
    for eps in noise_prior:
        z = z.detach().requires_grad_()
        potential = energy(z).sum() + (z**2).sum() / 2
        z = z - s_prior**2 / 2 * torch.autograd.grad(potential, z)[0] + s_prior * eps
    z_prior = z.detach()
    adam_g = torch.optim.Adam(generator.parameters(), lr=RATES["generator"], betas=(0.5, 0.999))
    adam_e = torch.optim.Adam(energy.parameters(), lr=RATES["energy"], betas=(0.5, 0.999))
    (((x - generator(z_post)) ** 2).sum() / len(x)).backward()
    adam_g.step()
    (energy(z_post).mean() - energy(z_prior).mean()).backward()
    adam_e.step()
    return z_post, z_prior


@pytest.mark.parametrize("scale_likelihood", [False, True])
def test_one_step_equals_the_published_update(scale_likelihood):
    x = torch.rand(8, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ours, theirs = small_model(scale_likelihood).double(), small_model().double()

    post, prior = ours.noise("posterior", 0), ours.noise("prior", 0)
    draw = {"dtype": torch.float64}
    start_post, noise_post = post.normal((8, 3), **draw), post.normal((8, 3), steps=5, **draw)
    start_prior, noise_prior = prior.normal((8, 3), **draw), prior.normal((8, 3), steps=6, **draw)
    before = [p.clone() for p in theirs.parameters()]
    published_step(
        x, theirs.likelihood.generator, theirs.prior.tilt, start_post, noise_post, start_prior, noise_prior
    )

    optimizer, _ = ours.optimizer_settings.build(ours.networks(), fused=True)
    ours.loss(batch_of(x), 0).backward()
    optimizer.step()
    # With the likelihood's own scale only Adam's epsilon (1e-8 against gradients of 1e-3 and more) tells the
    # two apart.
    tolerance = 1e-13 if not scale_likelihood else 1e-7
    for ours_p, theirs_p, before_p in zip(ours.parameters(), theirs.parameters(), before, strict=True):
        assert not torch.equal(theirs_p, before_p)
        torch.testing.assert_close(ours_p, theirs_p, rtol=0, atol=tolerance)


def test_posterior_chain_matches_the_closed_form():
    """Mean, and covariance including the chain's own bias, of a linear-Gaussian posterior under a Gaussian
    prior.
    """
    torch.manual_seed(0)
    sigma, s, chains = 0.5, 0.2, 40_000
    likelihood = GaussianLikelihood(LinearGenerator(2, 5), sigma).double()
    model = LatentMLE(
        likelihood,
        StandardNormal(2).double(),
        Langevin(0, 1.0),
        Langevin(300, s),
        AdamGroups({"generator": 1e-3}),
    )
    weight = likelihood.generator.linear.weight.detach()
    x = torch.tensor([[1.0, -0.5, 0.3, 2.0, -1.0]], dtype=torch.float64).expand(chains, -1)
    z = model.encode(x, generator=torch.Generator().manual_seed(3))
    mean, covariance = posterior(x[:1], weight, sigma, torch.zeros(2).double(), torch.eye(2).double())
    rates, axes = torch.linalg.eigh(torch.linalg.inv(covariance))
    stationary = 1 / (rates * (1 - rates * s**2 / 4))
    centred = (z - mean) @ axes
    error = (stationary / chains).sqrt()
    assert ((z.mean(0) - mean[0]) @ axes).abs().le(4 * error).all()
    assert (centred.var(0) - stationary).abs().le(4 * stationary * (2 / chains) ** 0.5).all()
    # and the bias is real: the exact covariance lies outside the same tolerance
    assert (centred.var(0) - 1 / rates).abs().gt(4 * (2 / chains) ** 0.5 / rates).any()


def test_learning_recovers_the_known_marginal_likelihood():
    """Trained on data of a linear-Gaussian model with a shifted, correlated prior, the model reaches the true
    likelihood.

    The generator has no bias, so the mean can only be learned by the energy.
    """
    torch.manual_seed(0)
    sigma, n = 0.7, 4000
    true_weight = (
        torch.linalg.qr(torch.randn(5, 2, dtype=torch.float64)).Q * torch.tensor([1.5, 1.2]).double()
    )
    truth = marginal(
        true_weight,
        sigma,
        torch.tensor([1.0, -0.7]).double(),
        torch.tensor([[0.6, 0.2], [0.2, 0.5]]).double(),
    )
    data, test = truth.sample((n,)), truth.sample((20_000,))
    energy = QuadraticEnergy(2)
    model = LatentMLE(
        GaussianLikelihood(LinearGenerator(2, 5), sigma),
        EnergyPrior(energy),
        prior_sampler=Langevin(50, 0.3),
        posterior_sampler=Langevin(40, 0.18),
        optimizer=AdamGroups({"generator": 3e-2, "energy": 5e-2}, betas=(0.9, 0.999), lr_decay=0.8),
    ).double()
    # Of the data's order of magnitude: the prior need not stretch beyond the reach of a short chain.
    with torch.no_grad():
        model.likelihood.generator.linear.weight.copy_(true_weight + 0.5 * torch.randn(5, 2))
    optimizer, schedule = model.optimizer_settings.build(model.networks(), fused=True)

    def shortfall() -> float:
        weight = model.likelihood.generator.linear.weight.detach()
        mean, covariance = (t.detach() for t in energy.prior())
        return (truth.log_prob(test) - marginal(weight, sigma, mean, covariance).log_prob(test)).mean().item()

    at_start = shortfall()
    for step in range(100):
        rows = torch.randint(n, (400,))
        optimizer.zero_grad()
        model.loss(batch_of(data[rows]), step).backward()
        optimizer.step()
        if step % 15 == 14:
            schedule.step()
    # 13 free parameters on 4,000 points cost 13 / (2 * 4000) nats; the rest is the chains' bias at these
    # steps.
    assert at_start > 0.3
    assert shortfall() < 0.03


def test_chains_leave_no_parameter_gradients_and_the_loss_separates_them():
    """Each network's gradient is its own term's: the likelihood's for the generator, the energy gap's for the
    energy.
    """
    x = torch.rand(8, 1, 4, 4) * 2 - 1
    model = small_model()
    model.loss(batch_of(x), 0).backward()
    joint = {name: [p.grad.clone() for p in net.parameters()] for name, net in model.networks().items()}
    positives = model.infer(x, {"x": x}, 0).z
    negatives = model.negatives(8, 0)
    alone_g = torch.autograd.grad(
        -model.likelihood.log_prob(x, positives).mean(), list(model.likelihood.parameters())
    )
    gap = model.prior.energy(positives).mean() - model.prior.energy(negatives).mean()
    alone_e = torch.autograd.grad(gap, list(model.prior.parameters()))
    for got, want in zip(joint["generator"] + joint["energy"], [*alone_g, *alone_e], strict=True):
        torch.testing.assert_close(got, want)


def test_zero_energy_prior_equals_the_gaussian_baseline():
    """With a zero energy the posterior chain and the generator's gradient are those of alternating
    back-propagation.
    """
    x = torch.rand(8, 1, 4, 4) * 2 - 1
    tilted = small_model()
    with torch.no_grad():
        for p in tilted.prior.parameters():
            p.zero_()
    torch.manual_seed(1)
    likelihood = GaussianLikelihood(MLPGenerator(3, [1, 4, 4], hidden=[16]), sigma=0.3)
    plain = LatentMLE(
        likelihood, StandardNormal(3), Langevin(0, 1.0), Langevin(5, 0.1), AdamGroups({"generator": 1e-3})
    )
    torch.testing.assert_close(tilted.loss(batch_of(x), 0), plain.loss(batch_of(x), 0))
    assert list(plain.networks()) == ["generator"]


def test_scores_do_not_depend_on_the_batch():
    model = small_model()
    x = torch.rand(6, 1, 4, 4) * 2 - 1
    index = torch.arange(10, 16)
    together = model.anomaly_score(x, generator=model.sample_noise("encode", index))
    alone = torch.cat(
        [
            model.anomaly_score(x[i : i + 1], generator=model.sample_noise("encode", index[i : i + 1]))
            for i in range(6)
        ]
    )
    torch.testing.assert_close(together, alone)


def test_answers_work_under_inference_mode():
    model = small_model()
    with torch.inference_mode():
        x = torch.rand(4, 1, 4, 4)
        generator = torch.Generator().manual_seed(0)
        assert model.reconstruct(x, generator=generator).shape == x.shape
        assert model.sample(3, steps=2, generator=generator).shape == (3, 1, 4, 4)
        assert torch.isfinite(model.anomaly_score(x, generator=Noise([(0,)]))).all()


def test_wrong_settings_are_named():
    likelihood, prior = GaussianLikelihood(MLPGenerator(3, [4])), EnergyPrior(MLPEnergy(2))
    with pytest.raises(ValueError, match="3 latent coordinates but the prior has 2"):
        LatentMLE(likelihood, prior, Langevin(1, 0.1), Langevin(1, 0.1), AdamGroups(RATES))
    small = EnergyPrior(MLPEnergy(3))
    with pytest.raises(ValueError, match="no network 'encoder'"):
        LatentMLE(
            likelihood, small, Langevin(1, 0.1), Langevin(1, 0.1), AdamGroups({**RATES, "encoder": 1e-3})
        )
    with pytest.raises(ValueError, match="give a learning rate for 'energy'"):
        LatentMLE(
            likelihood,
            EnergyPrior(MLPEnergy(3)),
            Langevin(1, 0.1),
            Langevin(1, 0.1),
            AdamGroups({"generator": 1e-3}),
        )
