"""JointHierarchicalPrior against closed forms, and the gradient of every network against a derivation."""

from __future__ import annotations

import math

import pytest
import torch

from lebm.estimators import AdamGroups, JointHierarchicalPrior, LatentMLE
from lebm.inference import Inferred, ShortRun, Variational
from lebm.models import (
    DiagonalGaussian,
    EnergyPrior,
    GaussianChain,
    GaussianLikelihood,
    MLPEnergy,
    MLPGenerator,
    StandardNormal,
)
from lebm.samplers import Langevin
from tests.estimators.hierarchical_models import (
    DIMS,
    batch_of,
    concatenated,
    conditional,
    encoder,
    gradients,
    rates,
    variational,
)
from tests.estimators.linear_gaussian import LinearGenerator, QuadraticEnergy

SIZE = sum(DIMS)


def negative_elbo(model: JointHierarchicalPrior, x: torch.Tensor, kl: str) -> torch.Tensor:
    """Of a VAE with prior N(0, I), written anew with torch's own distributions."""
    q = model.encoder(x)
    noise = model.noise("posterior", 0).normal(q.mean.shape, dtype=torch.float64)
    posterior = torch.distributions.Normal(q.mean, q.log_scale.exp())
    prior = torch.distributions.Normal(torch.zeros_like(q.mean), 1.0)
    z = q.mean + q.log_scale.exp() * noise
    likelihood = (
        torch.distributions.Normal(model.likelihood.generator(z), 0.5).log_prob(x).flatten(1).sum(dim=1)
    )
    if kl == "closed_form":
        divergence = torch.distributions.kl_divergence(posterior, prior).sum(dim=1)
    else:
        divergence = (posterior.log_prob(z) - prior.log_prob(z)).sum(dim=1)
    return (divergence - likelihood).mean()


@pytest.mark.parametrize("kl", ["closed_form", "monte_carlo"])
@pytest.mark.parametrize("energy", ["absent", "zero"])
def test_without_energy_the_loss_is_the_negative_elbo(kl: str, energy: str) -> None:
    model = variational(StandardNormal(SIZE) if energy == "absent" else None, kl=kl)
    if energy == "zero":
        with torch.no_grad():
            for parameter in model.prior.tilt.net[-1].parameters():
                parameter.zero_()
    batch = batch_of()
    loss, expected = model.loss(batch, 0), negative_elbo(model, batch["x"], kl)
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0)
    ours, theirs = gradients(model, loss), gradients(model, expected)
    for name in ("generator", "encoder"):
        assert theirs[name].abs().max() > 0.1
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-11, atol=1e-13)


def test_the_two_estimates_of_the_divergence_agree_on_average() -> None:
    """The closed form is the expectation of the released estimate: also for conditional Gaussians, of whose
    average it is a part.
    """
    for model in (
        variational(StandardNormal(SIZE)),
        conditional("variational", GaussianChain(DIMS, hidden=[8])),
    ):
        x = batch_of(1)["x"].expand(50_000, -1, -1, -1)
        with torch.no_grad():
            q = model.encoder(x)
            z = q.rsample(torch.Generator().manual_seed(0))
            closed = model.encoder_loss(Inferred(z, q))
            model.inference.kl = "monte_carlo"
            drawn = model.encoder_loss(Inferred(z, q))
            spread = (q.log_prob(z) - model.reference.log_density(z)).std() / 50_000**0.5
        assert spread > 1e-4
        assert abs(closed - drawn) < 4 * spread


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_every_network_has_the_gradient_of_its_own_objective(
    weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variational, one energy on all layers: eqs. of the ICCV paper piece by piece; a weight reaches the
    encoder alone.
    """
    monkeypatch.setattr(JointHierarchicalPrior, "prior_weight", weight)
    model, batch = variational(), batch_of()
    x = batch["x"]
    joint = gradients(model, model.loss(batch, 0))
    q = model.encoder(x)
    z = q.rsample(model.noise("posterior", 0))
    negatives = model.negatives(len(x), 0)
    standard = DiagonalGaussian(torch.zeros_like(q.mean), torch.zeros_like(q.mean))
    nll, kl = -model.likelihood.log_prob(x, z).mean(), q.divergences(standard).sum(dim=1).mean()
    up = model.prior.energy(z).mean()
    expected = {
        "generator": gradients(model, nll)["generator"],
        # the encoder follows the energy's slope through z
        "encoder": gradients(model, nll + weight * (kl + up))["encoder"],
        "energy": gradients(
            model, model.prior.energy(z.detach()).mean() - model.prior.energy(negatives).mean()
        )["energy"],
    }
    without = gradients(model, nll + weight * kl)["encoder"]
    assert (expected["encoder"] - without).abs().max() > 1e-4
    assert joint.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(joint[name], expected[name], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("scheme", ["variational", "mcmc"])
def test_the_inter_layer_gaussians_are_trained_contrastively(scheme: str) -> None:
    """CVPR: E_post[grad log p0] - E_prior[grad log p0] for the reference, and the same contrast for each
    layer's energy.
    """
    model, batch = (
        conditional(scheme, **({"kl": "monte_carlo"} if scheme == "variational" else {})),
        batch_of(),
    )
    x = batch["x"]
    joint = gradients(model, model.loss(batch, 0))
    if scheme == "mcmc":
        z = model.infer(model.observations(batch), batch, 0).z
    else:
        z = model.encoder(x).rsample(model.noise("posterior", 0)).detach()
    negatives, base = model.negatives(len(x), 0), model.prior.base
    contrast = base.log_density(negatives).mean() - base.log_density(z).mean()
    torch.testing.assert_close(
        joint["reference"], gradients(model, contrast)["reference"], rtol=1e-10, atol=1e-13
    )
    plain = gradients(model, -base.log_density(z).mean())["reference"]
    assert (joint["reference"] - plain).abs().max() > 0.01
    gap = sum(
        energy(up).mean() - energy(down).mean()
        for energy, up, down in zip(
            model.prior.tilt.energies, model.layout.split(z), model.layout.split(negatives), strict=True
        )
    )
    torch.testing.assert_close(joint["energy"], gradients(model, gap)["energy"], rtol=1e-10, atol=1e-13)
    nll = -model.likelihood.log_prob(x, z).mean()
    torch.testing.assert_close(joint["generator"], gradients(model, nll)["generator"], rtol=1e-10, atol=1e-13)
    if scheme == "variational":
        q = model.encoder(x)
        z = q.rsample(model.noise("posterior", 0))
        whole = q.log_prob(z) - model.likelihood.log_prob(x, z) - model.prior.log_density(z)
        torch.testing.assert_close(
            joint["encoder"], gradients(model, whole.mean())["encoder"], rtol=1e-10, atol=1e-13
        )


def test_with_one_layer_the_mcmc_scheme_is_latent_mle() -> None:
    torch.manual_seed(3)
    likelihood, prior = (
        GaussianLikelihood(MLPGenerator(3, [1, 4, 4], [8]), 0.5),
        EnergyPrior(MLPEnergy(3, [8])),
    )
    chains = {"prior_sampler": Langevin(5, 0.4), "posterior_sampler": Langevin(4, 0.1)}
    parts = {
        "likelihood": likelihood,
        "prior": prior,
        "optimizer": rates("generator", "energy"),
        "noise_shards": 4,
    }
    ours = JointHierarchicalPrior(**parts, **chains, inference=ShortRun()).double()
    theirs = LatentMLE(**parts, **chains).double()
    batch = batch_of()
    torch.testing.assert_close(ours.loss(batch, 3), theirs.loss(batch, 3), rtol=0, atol=0)


def test_a_quadratic_energy_makes_everything_gaussian() -> None:
    """Prior chain, and the loss at its expectation: KL(q || prior) of two Gaussians up to the known log Z."""
    energy = QuadraticEnergy(SIZE)
    with torch.no_grad():
        energy.matrix.copy_(torch.diag(torch.tensor([0.5, 1.0, 0.0, 0.3, 2.0])))
        energy.vector.copy_(torch.tensor([0.4, -1.0, 0.5, 0.0, 1.0]))
    model = variational(EnergyPrior(energy))
    mean, covariance = (part.detach().double() for part in energy.prior())
    model.prior_sampler = Langevin(200, 0.2)
    n, rate = 20_000, 1 / covariance.diagonal()
    z = model.sample_latent(n, generator=torch.Generator().manual_seed(0))
    stationary = 1 / (rate * (1 - rate * 0.2**2 / 4))
    assert (z.mean(0) - mean).abs().le(4 * (stationary / n).sqrt()).all()
    assert (z.var(0) - stationary).abs().le(4 * stationary * (2 / n) ** 0.5).all()

    x = batch_of(1)["x"].expand(n, -1, -1, -1)
    with torch.no_grad():
        q = model.encoder(x)
        drawn = q.rsample(torch.Generator().manual_seed(1))
        energies = model.prior.energy(drawn)
        log_z = 0.5 * (mean @ torch.linalg.solve(covariance, mean) + covariance.logdet())
        estimate = model.encoder_loss(Inferred(drawn, q)) + energies.mean() + log_z
    exact = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(q.mean[0], torch.diag(q.log_scale[0].exp().square())),
        torch.distributions.MultivariateNormal(mean, covariance),
    )
    assert abs(estimate - exact) < 4 * energies.std() / n**0.5


def test_learning_reaches_the_known_evidence() -> None:
    """Linear-Gaussian data with a shifted prior mean: the ELBO with the energy's constant comes near log p(x)
    only with an energy.
    """
    torch.manual_seed(0)
    weight = torch.linalg.qr(torch.randn(6, 2, dtype=torch.float64)).Q
    shift, sigma = torch.tensor([1.5, -1.0]).double(), 0.5
    truth = torch.distributions.MultivariateNormal(
        weight @ shift, weight @ weight.T + sigma**2 * torch.eye(6).double()
    )
    data = truth.sample((4000,))

    class LinearEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layout, self.net = None, torch.nn.Linear(6, 4)

        def forward(self, x: torch.Tensor):
            return DiagonalGaussian(*self.net(x).chunk(2, dim=1))

    energy = QuadraticEnergy(2)
    generator = LinearGenerator(2, 6)
    with torch.no_grad():
        generator.linear.weight.copy_(weight)
    settings = AdamGroups(
        {"generator": 1e-3, "encoder": 3e-2, "energy": 5e-2}, betas=(0.9, 0.999), lr_decay=0.9
    )
    model = JointHierarchicalPrior(
        GaussianLikelihood(generator, sigma),
        EnergyPrior(energy),
        Langevin(30, 0.5),
        settings,
        Variational(LinearEncoder()),
    ).double()
    optimizer, schedule = model.optimizer_settings.build(model.networks(), fused=True)

    def shortfall() -> float:
        """E[log p(x)] minus the ELBO, nats."""
        with torch.no_grad():
            q = model.encoder(data)
            z = q.rsample(torch.Generator().manual_seed(5))
            mean, covariance = energy.prior()
            log_z = 0.5 * (mean @ torch.linalg.solve(covariance, mean) + covariance.logdet())
            bound = model.likelihood.log_prob(data, z) + model.prior.log_density(z) - log_z - q.log_prob(z)
            return (truth.log_prob(data) - bound).mean().item()

    assert shortfall() > 1.0
    for step in range(200):
        optimizer.zero_grad()
        model.loss({"x": data[torch.randint(4000, (200,))]}, step).backward()
        optimizer.step()
        if step % 15 == 14:
            schedule.step()
    assert shortfall() < 0.1


def test_spectral_norm_takes_one_power_iteration_a_step() -> None:
    model = variational(concatenated(spectral_norm=True))
    layer = model.prior.tilt.net[0].parametrizations.weight[0]
    before = layer._u.clone()
    chain = model.negatives(8, 0)
    assert torch.equal(layer._u, before)
    assert torch.equal(chain, model.negatives(8, 0))
    once = torch.nn.functional.normalize(
        (model.prior.tilt.net[0].parametrizations.weight.original @ layer._v).detach(), dim=0
    )
    model.loss(batch_of(), 0)
    assert (layer._u - once).abs().max() < 1e-6
    assert model.prior.tilt.training


def test_warm_up_reaches_one() -> None:
    model = variational(warm_up=10.0)
    assert model.prior_weight == 1.0  # without a trainer

    class At:
        global_step = 4

    model._trainer = At()  # type: ignore[assignment]
    assert model.prior_weight == pytest.approx(1 - math.exp(-0.5))
    assert encoder().latent_dim == SIZE
