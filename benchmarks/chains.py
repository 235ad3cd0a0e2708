"""Groups of chains: compared with the published loop and two libraries, in stages, and with layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.rivals import (
    Potential,
    PublishedLoop,
    Variants,
    check_agreement,
    peers,
    plain_energy,
    plain_generator,
    same_size,
)
from lebm.models import (
    ConcatenatedEnergy,
    ConvGenerator,
    EnergyPrior,
    GaussianChain,
    GaussianLikelihood,
    HierarchicalPrior,
    LayerEnergies,
    MLPEnergy,
    RatioPrior,
    RatioProduct,
)
from lebm.models.chain_space import ChainSpace, NoiseSpace
from lebm.models.frozen import frozen
from lebm.samplers import Langevin, log_density_gradient

LATENT, SIGMA, STAGES = 100, 0.3, (1, 2, 4, 8)
Chain = Callable[[], Tensor]


def langevin(steps: int, size: float, device: str, **settings: int) -> dict[str, Langevin]:
    """Return our sampler without and with compilation, on a GPU with CUDA graphs too."""
    plain = Langevin(steps, size, compile=True, compile_mode="default", **settings)
    found = {"eager": Langevin(steps, size), "compiled": plain}
    if device.startswith("cuda"):
        found["compiled, CUDA graphs"] = Langevin(steps, size, compile=True, **settings)
    return found


def plain_copy(prior: EnergyPrior) -> torch.nn.Module:
    """Return the published energy with our weights, whose last layer has no constant."""
    energy = plain_energy(LATENT)
    energy.load_state_dict(prior.tilt.net.state_dict(), strict=False)  # type: ignore[union-attr]
    return energy


def prior_chain(batch: int, device: str) -> Variants:
    """Build chains of 60 steps on the prior, latent 100, energy 200-200-1."""
    torch.manual_seed(0)
    prior = EnergyPrior(MLPEnergy(LATENT)).to(device)
    generator = plain_generator(LATENT, [1, 28, 28], [2, 1])
    published = PublishedLoop(generator.to(device), plain_copy(prior).to(device))
    start = torch.randn(batch, LATENT, device=device)
    ours = {name: partial(s, prior.target(), start) for name, s in langevin(60, 0.4, device).items()}
    variants: dict[str, Chain] = {"published": lambda: published.sample_prior(start[:, :, None, None])}
    variants |= ours | peers(Potential(prior.target(), prior), 0.4, 60, start)
    check_agreement(variants)
    return {**variants}


def posterior_chain(batch: int, device: str, steps: int = 4) -> Variants:
    """Build chains of a few steps on the posterior through the generator of SVHN."""
    torch.manual_seed(0)
    prior, channels = EnergyPrior(MLPEnergy(LATENT)).to(device), [512, 256, 128]
    likelihood = GaussianLikelihood(ConvGenerator(LATENT, [3, 32, 32], channels), SIGMA).to(device)
    generator = plain_generator(LATENT, [3, 32, 32], channels).to(device)
    same_size(likelihood, generator)
    for mine, theirs in zip(likelihood.parameters(), generator.parameters(), strict=True):
        theirs.data.copy_(mine.data.reshape(theirs.shape))
    published = PublishedLoop(generator, plain_copy(prior).to(device), SIGMA, posterior=(steps, 0.1))
    start = torch.randn(batch, LATENT, device=device)
    x = likelihood.sample(torch.randn_like(start)).detach()
    target = prior.target()

    def density(z: Tensor) -> Tensor:
        return likelihood.log_prob(x, z) + target(z)

    samplers = langevin(steps, 0.1, device, unroll=1)
    variants: dict[str, Chain] = {"published": lambda: published.sample_posterior(start[:, :, None, None], x)}
    variants |= {name: partial(sampler, density, start) for name, sampler in samplers.items()}
    variants |= peers(Potential(density, prior, likelihood), 0.1, steps, start)
    check_agreement(variants)
    return {**variants}


def staged_prior(stages: int, dim: int, width: int, max_stages: int = 8) -> RatioPrior:
    """Return a prior whose stages hold arbitrary weights."""
    prior = RatioPrior(RatioProduct(MLPEnergy(dim, [width, width], output_bias=True), max_stages))
    for _ in range(stages):
        torch.nn.init.normal_(prior.tilt.active.net[-1].weight, std=0.05)
        prior.tilt.switch()
    return prior


def stages(dim: int, width: int, device: str) -> Variants:
    """Build the gradient of a prior of k stages at batch 512: one batched network, or k calls."""
    z = torch.randn(512, dim, device=device)
    separate = [MLPEnergy(dim, [width, width], output_bias=True).to(device) for _ in range(max(STAGES))]
    variants: Variants = {}
    for count in STAGES:
        prior = staged_prior(count, dim, width).to(device)

        def one_by_one(state: Tensor, count: int = count, prior: RatioPrior = prior) -> Tensor:
            return prior.base.log_density(state) - sum(network(state) for network in separate[:count])

        variants[f"{count} stages"] = partial(log_density_gradient, prior.log_density_so_far(), z)
        variants[f"{count} separate calls"] = partial(log_density_gradient, one_by_one, z)
    return variants


def layers(sizes: list[int], hidden: list[int], device: str) -> Variants:
    """Build chains of 60 steps for a batch of 100 on one layer, and on several of equal total dimension.

    Several layers have one energy on the concatenation (ICCV 2023), or one per layer on conditional Gaussians
    (CVPR 2023), whose chains move latents or noise. The released form moves a list of tensors, one per layer.
    """
    energies = LayerEnergies([MLPEnergy(size, hidden, activation="leaky_relu") for size in sizes])
    conditional = HierarchicalPrior(energies, GaussianChain(sizes))
    single = EnergyPrior(MLPEnergy(sum(sizes), hidden, activation="leaky_relu", spectral_norm=True))
    joint = ConcatenatedEnergy(sizes, hidden).to(device)
    starts = [torch.randn(100, size, device=device) for size in sizes]

    def chain(space: ChainSpace) -> Chain:
        space.prior.to(device)
        sampler = Langevin(60, 0.3)

        def run() -> Tensor:
            with frozen(space.prior):
                return space.latents(sampler(space.target(), torch.cat(starts, dim=1)))

        return run

    def list_of_layers() -> Tensor:
        moved = starts
        with frozen(joint):
            for _ in range(60):
                moved = [layer.detach().requires_grad_() for layer in moved]
                slopes = torch.autograd.grad(joint(torch.cat(moved, dim=1)).sum(), moved)
                moved = [
                    z.detach() - 0.5 * 0.3**2 * (slope + z.detach()) + 0.3 * torch.randn_like(z)
                    for z, slope in zip(moved, slopes, strict=True)
                ]
        return torch.cat(moved, dim=1)

    together = chain(ChainSpace(EnergyPrior(joint)))
    check_agreement({"list of tensors": list_of_layers, "concatenation": together})
    return {
        "single layer": chain(ChainSpace(single)),
        "concatenation": together,
        "list of tensors": list_of_layers,
        "conditional, latents": chain(ChainSpace(conditional)),
        "conditional, noise": chain(NoiseSpace(conditional)),
    }


GROUPS: dict[str, Callable[[str], Variants]] = {
    "chains/prior-100": partial(prior_chain, 100),
    "chains/prior-512": partial(prior_chain, 512),
    "chains/prior-4096": partial(prior_chain, 4096),
    "chains/posterior-100": partial(posterior_chain, 100),
    "stages/8x64": partial(stages, 8, 64),
    "stages/100x200": partial(stages, 100, 200),
    "layers/5x10": partial(layers, [10] * 5, [100, 100]),
    "layers/3x2": partial(layers, [2] * 3, [100, 100]),
    "layers/128+100": partial(layers, [128, 100], [200, 200]),
}
"""Builders of the groups on a device, by name."""
