"""One training step of ours, and the released steps written anew in plain torch, in float64.

Both start from the same weights, batch and normals. The networks have the released depth, at a small width
unless told otherwise; every constant of the release is written here or in the test, not read from the recipe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from lebm.config.parser import RecipeCLI
from lebm.config.request import read_request
from lebm.estimators import DualMCMCTeaching, JointHierarchicalPrior, LatentMLE, LatentModel
from lebm.samplers import Noise
from lebm.samplers.langevin import STEPS_A_DRAW
from tests.fidelity import networks as released
from tests.recipes.test_dual_mcmc import narrow as narrow_dual
from tests.recipes.test_joint_hierarchical import narrow as narrow_joint
from tests.recipes.test_recipes import small

BATCH = 4


@dataclass
class Step:
    """What a step computed: values by name, gradients by network, and the networks after it."""

    values: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, list[Tensor]] = field(default_factory=dict)
    parameters: dict[str, list[Tensor]] = field(default_factory=dict)

    def learn(self, name: str, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Record a network's gradient, take the step, record its parameters."""
        learned = list(network.parameters())
        self.gradients[name] = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in learned]
        optimizer.step()
        self.parameters[name] = [p.detach().clone() for p in learned]


def built(name: str, *words: str, full_width: bool = False) -> LatentModel:
    width = {"latent_mle": small, "joint_hierarchical": narrow_joint, "dual_mcmc": narrow_dual}
    narrower = [] if full_width else width[name.split("/")[0]](name)
    request = read_request("fit", ["-c", name, *narrower, *words])
    torch.manual_seed(0)
    return RecipeCLI(request, trainer_too=False).model.double().train()


def images(model: LatentModel) -> Tensor:
    shape = model.likelihood.generator.out_shape
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.rand(BATCH, *shape, dtype=torch.float64, generator=generator) - 1


def chain_normals(noise: Noise, shape: tuple[int, ...], steps: int) -> list[Tensor]:
    """The normals of a chain, drawn in the pieces in which a chain draws them."""
    pieces = [min(STEPS_A_DRAW, steps - first) for first in range(0, steps, STEPS_A_DRAW)]
    return [row for piece in pieces for row in noise.normal(shape, steps=piece, dtype=torch.float64)]


def start_and_normals(noise: Noise, width: int, steps: int) -> tuple[Tensor, list[Tensor]]:
    return noise.normal((BATCH, width), dtype=torch.float64), chain_normals(noise, (BATCH, width), steps)


def adam(network: nn.Module, lr: float, betas: tuple[float, float], decay: float = 0.0) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=lr, betas=betas, weight_decay=decay)


def half_square(z: Tensor) -> Tensor:
    return 0.5 * (z**2).sum()


# Our step


def our_step(model: LatentModel, x: Tensor) -> Step:
    step = Step()
    batch = {"x": x, "index": torch.arange(len(x))}
    optimizer = model.optimizer_settings.build(model.networks(), fused=False)[0]
    if isinstance(model, DualMCMCTeaching):
        for _ in model.updates():
            optimizer.zero_grad()
            model.loss(batch, 0).backward()
            model.on_before_optimizer_step(optimizer)
            _record(step, model, set(model.learning), optimizer)
            again = " again" if "energy" in model.learning else ""
            step.values |= {name + again: value for name, value in model.revised.items()}
        return step
    if isinstance(model, LatentMLE):
        step.values["posterior chain"] = model.infer(x, {"x": x}, 0).z
    else:
        step.values["posterior chain"] = model.infer(x, {"x": x}, 0).z.detach()
    step.values["prior chain"] = model.negatives(len(x), 0)
    step.values["generated images"] = model.likelihood.mean(step.values["posterior chain"]).detach()
    model.loss(batch, 0).backward()
    _record(step, model, set(model.networks()), optimizer)
    return step


def _record(step: Step, model: LatentModel, names: set[str], optimizer: torch.optim.Optimizer) -> None:
    networks = {name: network for name, network in model.networks().items() if name in names}
    for name, network in networks.items():
        step.gradients[name] = [p.grad.clone() for p in network.parameters()]
    optimizer.step()
    for name, network in networks.items():
        step.parameters[name] = [p.detach().clone() for p in network.parameters()]


# The released steps


def latent_mle(model: LatentMLE, x: Tensor, prior: int, posterior: int, last: tuple[int, int]) -> Step:
    """Two chains, then the generator on the plain squared error, then the energy."""
    step, width = Step(), model.latent_dim
    generator, layers = model.likelihood.generator.net, released.tensors(model.prior.tilt)

    def g(z: Tensor) -> Tensor:
        return released.transposed(generator, z, last)

    def energy(z: Tensor) -> Tensor:
        return released.perceptron(layers, z, functional.gelu).squeeze(1)

    def potential(z: Tensor) -> Tensor:
        return energy(z).sum() + half_square(z)

    def of_data(z: Tensor) -> Tensor:
        return ((x - g(z)) ** 2).sum() / (2 * 0.3**2) + potential(z)

    positives = released.langevin(
        of_data, *start_and_normals(model.noise("posterior", 0), width, posterior), 0.1
    )
    negatives = released.langevin(potential, *start_and_normals(model.noise("prior", 0), width, prior), 0.4)
    made = g(positives).detach()
    step.values = {"posterior chain": positives, "prior chain": negatives, "generated images": made}
    (((x - g(positives)) ** 2).sum() / len(x)).backward()
    step.learn("generator", model.likelihood, adam(model.likelihood, 1e-4, (0.5, 0.999)))
    (energy(positives).mean() - energy(negatives).mean()).backward()
    step.learn("energy", model.prior, adam(model.prior, 2e-5, (0.5, 0.999)))
    return step


def ladder(
    model: JointHierarchicalPrior,
    x: Tensor,
    factor: float,
    chain: tuple[int, float],
    energy_lr: float,
    added: float,
) -> Step:
    """Generator and encoder on lambda |x - g(z)|^2 + KL - f(z), then the energy; ``f`` is minus the energy.

    The spectral norms take one power iteration per step, as ours do.
    """
    step, sizes = Step(), model.layout.sizes
    generator, layers = model.likelihood.generator, released.tensors(model.prior.tilt)
    g = released.ladder_of_ten if len(sizes) == 5 else released.ladder_of_four
    means, log_variances = released.bottom_up(model.encoder, x)
    normals = model.noise("posterior", 0).normal((BATCH, sum(sizes)), dtype=torch.float64).split(sizes, dim=1)
    z = [
        mean + (0.5 * log_variance).exp() * normal
        for mean, log_variance, normal in zip(means, log_variances, normals, strict=True)
    ]
    divergence = sum(
        released.gaussian_nll(at, torch.zeros_like(at), torch.zeros_like(at), added)
        - released.gaussian_nll(at, mean, log_variance, added)
        for at, mean, log_variance in zip(z, means, log_variances, strict=True)
    )
    together = torch.cat(z, dim=1)
    squared = ((x - g(generator, z)) ** 2).sum() / len(x)
    pull = released.normed_perceptron(layers, together, iterate=True).mean()
    (factor * squared + divergence.mean() + pull).backward()
    model.prior.zero_grad()

    def potential(at: Tensor) -> Tensor:
        return released.normed_perceptron(layers, at).sum() + half_square(at)

    start = start_and_normals(model.noise("prior", 0), sum(sizes), chain[0])
    negatives = released.langevin(potential, *start, chain[1])
    made = g(generator, z).detach()
    step.values = {"posterior chain": together.detach(), "prior chain": negatives, "generated images": made}
    on_data = released.normed_perceptron(layers, together.detach(), iterate=True).mean()
    (on_data - released.normed_perceptron(layers, negatives, iterate=True).mean()).backward()
    step.learn("energy", model.prior.tilt, adam(model.prior.tilt, energy_lr, (0.0, 0.9)))
    step.learn("generator", model.likelihood, adam(model.likelihood, 3e-4, (0.0, 0.9), 5e-4))
    step.learn("encoder", model.encoder, adam(model.encoder, 3e-4, (0.0, 0.9), 5e-4))
    return step


def conditional(model: JointHierarchicalPrior, x: Tensor, posterior: int, last: tuple[int, int]) -> Step:
    """Four Adams; .01 on every standard deviation, of the top layer too, and no bound."""
    step, sizes = Step(), model.layout.sizes
    generator = model.likelihood.generator.generator.net
    lower, upper = (released.tensors(energy) for energy in model.prior.tilt.energies)
    gaussian = released.tensors(model.prior.base)

    def g(z: Tensor) -> Tensor:
        return released.transposed(generator, z[:, : sizes[0]], last)

    def energy(z: Tensor) -> Tensor:
        one, two = z.split(sizes, dim=1)
        return sum(
            released.perceptron(layers, part, released.leaky).squeeze(1)
            for layers, part in ((lower, one), (upper, two))
        )

    def log_normal(z: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        scale = log_scale.exp() + 0.01
        return (-0.5 * ((z - mean) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)).sum(dim=1)

    def below(z: Tensor) -> Tensor:
        one, two = z.split(sizes, dim=1)
        return log_normal(one, *released.perceptron(gaussian, two, released.leaky).chunk(2, dim=1))

    def potential(z: Tensor) -> Tensor:
        zeros = torch.zeros_like(z[:, sizes[0] :])
        return (energy(z) - below(z) - log_normal(z[:, sizes[0] :], zeros, zeros)).sum()

    def squared(z: Tensor) -> Tensor:
        return ((x - g(z)) ** 2).sum() / (2 * 0.3**2)

    width = sum(sizes)
    start = start_and_normals(model.noise("posterior", 0), width, posterior)
    positives = released.langevin(lambda z: squared(z) + potential(z), *start, 0.1)
    start = start_and_normals(model.noise("prior", 0), width, 60)
    negatives = released.langevin(potential, *start, 0.4)
    made = g(positives).detach()
    step.values = {"posterior chain": positives, "prior chain": negatives, "generated images": made}
    (squared(positives) / len(x)).backward()
    step.learn("generator", model.likelihood, adam(model.likelihood, 1e-4, (0.9, 0.999)))
    (below(negatives).mean() - below(positives).mean()).backward()
    step.learn("reference", model.prior.base, adam(model.prior.base, 1e-4, (0.9, 0.999)))
    (energy(positives).mean() - energy(negatives).mean()).backward()
    step.learn("energy", model.prior.tilt, adam(model.prior.tilt, 2e-5, (0.9, 0.999)))
    return step


def dual(
    model: DualMCMCTeaching, x: Tensor, drift: float, teaching: float, added: float, scaled: bool
) -> Step:
    """Generator, then inference model, then the energy on new chains from the new generator's images."""
    step, energy, encoder = Step(), model.energy, model.encoder
    generator, width = model.likelihood.generator, model.latent_dim

    def revise(image: Tensor, purpose: str) -> Tensor:
        normals = chain_normals(model.noise(purpose, 0), tuple(image.shape), 30)
        return released.langevin(
            lambda at: released.residual_energy(energy, at).sum(), image, normals, drift, 0.001
        )

    z = model.noise("latents", 0).normal((BATCH, width), dtype=torch.float64)
    generated = released.residual_generator(generator, z)
    revised = revise(generated.detach(), "image")
    mean, log_variance = released.convolutional_encoder(encoder, x)
    normal, normals = start_and_normals(model.noise("posterior", 0), width, 10)
    inferred = (mean + (0.5 * log_variance).exp() * normal).detach()
    revised_z = released.langevin(
        lambda at: ((x - released.residual_generator(generator, at)) ** 2).sum() / 0.3**2 + half_square(at),
        inferred,
        normals,
        0.1,
    )
    step.values = {
        "generated images": generated.detach(),
        "revised images": revised,
        "revised latents": revised_z,
    }
    error = ((x - released.residual_generator(generator, revised_z)) ** 2).sum()
    ((error + teaching * ((generated - revised) ** 2).sum()) / len(x)).backward()
    step.learn("generator", model.likelihood, adam(model.likelihood, 3e-4, (0.0, 0.9), 5e-4))
    on_revised = released.convolutional_encoder(encoder, revised)
    nll = released.gaussian_nll(revised_z, mean, log_variance, added)
    (nll + 0.1 * released.gaussian_nll(z, *on_revised, added)).mean().backward()
    step.learn("encoder", encoder, adam(encoder, 1e-4, (0.0, 0.9), 5e-4))
    with torch.no_grad():
        again = released.residual_generator(generator, z)
    again = step.values["revised images again"] = revise(again, "image again")
    gap = released.residual_energy(energy, x, iterate=True).mean()
    gap = gap - released.residual_energy(energy, again, iterate=True).mean()
    (gap / (0.001 / drift) ** 2 if scaled else gap).backward()
    step.learn("energy", energy, adam(energy, 1e-4, (0.0, 0.9)))
    return step
