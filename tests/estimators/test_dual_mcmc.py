"""DualMCMCTeaching against closed forms and against an independent re-statement of the published update."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from lebm.checkpoint.rebuild import build
from lebm.component import describe
from lebm.errors import UserError
from lebm.estimators import AdamGroups, DualMCMCTeaching
from lebm.models import ConvEncoder, Energy, GaussianLikelihood, MLPEncoder, ResNetEnergy, ResNetGenerator
from lebm.samplers import Langevin, Noise, PersistentChains

RATES = {"energy": 1e-4, "generator": 3e-4, "encoder": 2e-4}
DECAY = {"generator": 5e-4, "encoder": 5e-4}
NOISE, STEP, SIGMA = 0.001, 0.5, 0.212
TEMPERATURE = (NOISE / STEP) ** 2
SHAPE = [1, 8, 8]


class ZeroEnergy(Energy):
    """Nothing to learn, so that the chain is pure noise."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x.flatten(1).sum(1)


def batch_of(x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"x": x, "index": torch.arange(len(x))}


def images(n: int = 6) -> torch.Tensor:
    return torch.rand(n, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def small(norm: str = "batch", energy: Energy | None = None, **settings) -> DualMCMCTeaching:
    torch.manual_seed(1)
    arguments = {
        "energy": energy or ResNetEnergy(SHAPE, [6, 6], [True, False], activation="silu"),
        "likelihood": GaussianLikelihood(ResNetGenerator(3, SHAPE, [6, 4], start=4, norm=norm), SIGMA),
        "encoder": ConvEncoder(3, SHAPE, [4, 6], end=4),
        "image_sampler": Langevin(4, NOISE),
        "posterior_sampler": Langevin(3, 0.1),
        "optimizer": AdamGroups(RATES, betas=(0.0, 0.9), weight_decay=DECAY),
        "temperature": TEMPERATURE,
        "teaching_weight": 50.0,
        "revised_inference_weight": 0.1,
        "scale_likelihood": False,
    }
    return DualMCMCTeaching(**(arguments | settings)).double()


def update(
    model: DualMCMCTeaching, x: torch.Tensor, optimizer: torch.optim.Optimizer | None = None, number: int = 0
) -> None:
    """What the Trainer does with a batch."""
    optimizer = optimizer or model.optimizer_settings.build(model.networks(), fused=True)[0]
    for _ in model.updates():
        loss = model.loss(batch_of(x), number)
        optimizer.zero_grad()
        loss.backward()
        model.on_before_optimizer_step(optimizer)
        optimizer.step()


def drawn(model: DualMCMCTeaching, n: int) -> dict[str, torch.Tensor]:
    """The standard normals of the first step, in the order in which they are used."""
    double = {"dtype": torch.float64}
    posterior = model.noise("posterior", 0)
    return {
        "z": model.noise("latents", 0).normal((n, 3), **double),
        "inferred": posterior.normal((n, 3), **double),
        "posterior": posterior.normal((n, 3), steps=3, **double),
        "image": model.noise("image", 0).normal((n, *SHAPE), steps=4, **double),
        "image again": model.noise("image again", 0).normal((n, *SHAPE), steps=4, **double),
    }


def published_step(x, energy, generator, encoder, noise, alternate):
    """The released iteration, written anew in its own terms: three Adams, drift step and noise scale apart,
    pixel sums.
    """
    networks = {"energy": energy, "generator": generator, "encoder": encoder}
    adams = {
        name: torch.optim.Adam(
            net.parameters(), lr=RATES[name], betas=(0.0, 0.9), weight_decay=DECAY.get(name, 0.0)
        )
        for name, net in networks.items()
    }

    def revise_image(start, kicks):
        energy.eval()  # the released chain goes on iterating the norm's vector, which is not copied here
        for kick in kicks:
            start = start.detach().requires_grad_()
            slope = torch.autograd.grad(energy(start).sum(), start)[0]
            start = start - 0.5 * STEP**2 * slope + NOISE * kick
        energy.train()
        return start.detach()

    z = noise["z"]
    first = generator(z)
    revised = revise_image(first, noise["image"])
    q = encoder(x)
    mean, log_variance = q.mean, 2 * q.log_scale
    z_revised = mean + torch.exp(0.5 * log_variance) * noise["inferred"]
    for kick in noise["posterior"]:
        z_revised = z_revised.detach().requires_grad_()
        potential = ((x - generator(z_revised)) ** 2).sum() / 0.3**2 + 0.5 * (z_revised**2).sum()
        z_revised = z_revised - 0.5 * 0.1**2 * torch.autograd.grad(potential, z_revised)[0] + 0.1 * kick
    z_revised = z_revised.detach()

    def nll(mean, log_variance, at):
        return (0.5 * ((at - mean) ** 2 / log_variance.exp() + log_variance)).sum() / len(at)

    error = ((x - generator(z_revised)) ** 2).sum() / len(x) + 50 * ((first - revised) ** 2).sum() / len(x)
    error.backward()
    q_revised = encoder(revised)
    (nll(mean, log_variance, z_revised) + 0.1 * nll(q_revised.mean, 2 * q_revised.log_scale, z)).backward()
    negatives = revised
    if alternate:
        adams["generator"].step()
        with torch.no_grad():
            negatives = generator(z)
        negatives = revise_image(negatives, noise["image again"])
    adams["encoder"].step()
    energies = energy(torch.cat([x, negatives]))
    (energies[: len(x)].mean() - energies[len(x) :].mean()).backward()
    adams["energy"].step()
    if not alternate:
        adams["generator"].step()


@pytest.mark.parametrize("schedule", ["simultaneous", "alternate"])
def test_one_step_equals_the_published_update(schedule):
    """Released networks with BatchNorm on batch statistics, released constants; sigma is what 0.3 without the
    one half means.
    """
    x = images()
    ours = small(schedule=schedule, batch_statistics=True)
    ours.likelihood.sigma = 0.3 / 2**0.5
    theirs = copy.deepcopy(ours)
    before = {name: p.clone() for name, p in ours.named_parameters()}
    published_step(
        x,
        theirs.energy,
        theirs.likelihood.generator,
        theirs.encoder,
        drawn(ours, len(x)),
        schedule == "alternate",
    )
    update(ours, x)
    for (name, ours_p), theirs_p in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert not torch.equal(theirs_p, before[name]), name
        torch.testing.assert_close(
            ours_p, theirs_p, rtol=0, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_with_a_zero_energy_the_chain_adds_its_noise_and_teaching_has_its_closed_form():
    """After k steps of noise n the image moved by N(0, k n^2), so the released teaching error is S D k n^2 in
    the mean.
    """
    steps, n = 30, 400
    model = small("none", ZeroEnergy(), image_sampler=Langevin(steps, NOISE))
    with model.noting() as figures:
        before = model.loss(batch_of(images(n)), 0)
    moved = model.revised["revised images"] - model.revised["generated images"]
    variance, count = steps * NOISE**2, moved.numel()
    assert (moved.var() - variance).abs() < 4 * variance * (2 / count) ** 0.5
    assert moved.mean().abs() < 4 * (variance / count) ** 0.5
    error = model.likelihood.squared_error(figures["teaching/generator"], 64)
    assert (error - 64 * variance).abs() < 4 * variance * (2 * 64 / n) ** 0.5
    model.teaching_weight = 0.0
    without = model.loss(batch_of(images(n)), 0)
    torch.testing.assert_close((before - without).detach(), 50 * error)
    assert figures["train/energy_gap"] == 0


@pytest.mark.parametrize("scale", [False, True])
def test_each_networks_gradient_is_its_own(scale):
    """Separately derived from the chains' ends: contrast, two reconstructions, two log-densities."""
    x = images()
    model = small("none", scale_likelihood=scale)
    model.loss(batch_of(x), 0).backward()
    together = {
        name: [p.grad.clone() for p in network.parameters()] for name, network in model.networks().items()
    }
    z = drawn(model, len(x))["z"]
    x_revised, z_revised = model.revised["revised images"], model.revised["revised latents"]
    generator, encoder = model.likelihood.generator, model.encoder
    model.energy.eval()  # at the vector that the step's power iteration has left
    parts = {
        "energy": (model.energy(x) - model.energy(x_revised)).mean(),
        "generator": (
            ((x - generator(z_revised)).square().sum() + 50 * (x_revised - generator(z)).square().sum())
            / (len(x) * (2 * SIGMA**2 if scale else 1))
        ),
        "encoder": -(encoder(x).log_prob(z_revised) + 0.1 * encoder(x_revised).log_prob(z)).mean(),
    }
    for name, network in model.networks().items():
        for got, want in zip(
            together[name], torch.autograd.grad(parts[name], list(network.parameters())), strict=True
        ):
            torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("schedule", ["simultaneous", "alternate"])
def test_chains_leave_no_trace_in_buffers(schedule, batch_statistics):
    """Running statistics see the two training forwards of the generator, spectral norm one power iteration a
    step, and no chain.
    """
    model, x = small(schedule=schedule, batch_statistics=batch_statistics), images()
    twin = copy.deepcopy(model)
    update(model, x)
    z = drawn(twin, len(x))["z"]
    twin.likelihood.mean(z)
    twin.likelihood.mean(model.revised["revised latents"])
    twin.energy(x)
    buffers = dict(twin.named_buffers())
    assert any("running_mean" in name for name in buffers)
    assert any("_u" in name for name in buffers)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, buffers[name], msg=lambda text, name=name: f"{name}: {text}")


def test_batch_statistics_couple_the_chains_of_a_batch_and_running_ones_do_not():
    for batch_statistics in (False, True):
        model, x = small(batch_statistics=batch_statistics).eval(), images()
        index = torch.arange(len(x))
        together = model.encode(x, generator=model.sample_noise("encode", index))
        alone = model.encode(x[:3], generator=model.sample_noise("encode", index[:3]))
        assert torch.allclose(together[:3], alone) != batch_statistics


def test_no_steps_are_the_networks_alone():
    model, x = small("none").eval(), images()
    noise = Noise([(5,)])
    z = Noise([(5,)]).normal((4, 3), dtype=torch.float64)
    torch.testing.assert_close(model.sample(4, steps=0, generator=noise), model.likelihood.generator(z))
    q = model.encoder(x)
    draw = Noise([(6,)]).normal((6, 3), dtype=torch.float64)
    torch.testing.assert_close(
        model.encode(x, steps=0, generator=Noise([(6,)])), q.mean + q.log_scale.exp() * draw
    )
    assert not torch.equal(
        model.sample(4, generator=Noise([(5,)])), model.sample(4, steps=0, generator=Noise([(5,)]))
    )


def test_scores_are_energies_and_do_not_depend_on_the_batch():
    model, x = small().eval(), images()
    outputs = model.validation_step(batch_of(x), 0)
    torch.testing.assert_close(outputs["anomaly_score"], model.energy(x) / TEMPERATURE)
    with torch.inference_mode():
        alone = torch.cat(
            [model.validation_step({"x": x[i : i + 1], "index": torch.tensor([i])}, 0)["z"] for i in range(6)]
        )
        assert model.sample(3, generator=Noise([(0,)])).shape == (3, *SHAPE)
    torch.testing.assert_close(outputs["z"], alone)
    z = outputs["z"]
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    around = torch.distributions.Normal(model.likelihood.generator(z), SIGMA).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(model.log_joint(x, z), (normal + around).detach())


def test_a_pool_of_image_chains_goes_on_in_training_only():
    off = {"teaching_weight": 0.0, "revised_inference_weight": 0.0}
    model, x = small("none", image_sampler=PersistentChains(Langevin(4, NOISE)), **off), images()
    update(model, x)
    first = model.revised["revised images"]
    update(model, x)
    kick = NOISE * 2
    assert (model.revised["revised images"] - first).std() < 1.5 * kick
    assert (model.revised["revised images"] - model.revised["generated images"]).std() > 1.5 * kick
    calls = model.image_sampler.calls
    model.sample(6, generator=Noise([(0,)]))
    assert model.image_sampler.calls == calls == 2
    assert model.image_sampler.training


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="3 latent coordinates but the encoder gives 2"):
        small(encoder=MLPEncoder(2, SHAPE))
    with pytest.raises(ValueError, match="temperature must be positive, not 0"):
        small(temperature=0.0)
    with pytest.raises(ValueError, match="cannot teach: set teaching_weight"):
        small(image_sampler=PersistentChains(Langevin(1, 0.1)))
    with pytest.raises(ValueError, match="posterior_sampler must not be a pool"):
        small(posterior_sampler=PersistentChains(Langevin(1, 0.1)))
    with pytest.raises(ValueError, match="schedule must be one of simultaneous, alternate, not 'both'"):
        small(schedule="both")
    with pytest.raises(ValueError, match="no network 'prior'"):
        small(optimizer=AdamGroups({**RATES, "prior": 1e-3}))


def test_a_checkpoint_with_the_former_arguments_opens_if_they_say_what_every_model_does_now():
    description = describe(small())
    former = {"scale_energy": False, "latent_start": "encoder", "image_start": "generator"}
    description["init_args"] |= former
    opened = build(description, DualMCMCTeaching)
    assert describe(opened) == describe(small())
    for name, value in (("scale_energy", True), ("latent_start", "prior"), ("image_start", "noise")):
        description["init_args"] |= former | {name: value}
        with pytest.raises(UserError, match=f"DualMCMCTeaching cannot be built: .*'{name}'"):
            build(description, DualMCMCTeaching)


def test_plain_modules_are_energies_and_encoders() -> None:
    size = math.prod(SHAPE)
    energy = nn.Sequential(nn.Flatten(), nn.Linear(size, 1))
    encoder = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(size), nn.Linear(size, 6))
    model = small(energy=energy, encoder=encoder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.rand(5, *SHAPE, dtype=torch.float64) * 2 - 1
    assert model.encode(x).shape == (5, 3)
    assert model.anomaly_score(x).shape == (5,)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    update(model, x)
