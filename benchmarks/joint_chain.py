"""What sampling all layers at once costs: a chain of a hierarchical prior beside a single-layer chain of the
same total dimension.

    python -m benchmarks.joint_chain                                     # a minute or two
    python -m benchmarks.joint_chain --device cuda --json joint_chain.json

The single-layer chain has one energy of the same widths. Beside it: one energy on the concatenation (ICCV
2023), one energy a layer on conditional Gaussians (CVPR 2023), in latents and in noise, and the concatenation
moved as a list of tensors, one a layer, as the released code does. Variants are interleaved, ratios taken
inside a round, medians with quartiles."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.timing import interleave, machine
from lebm.models import (
    ConcatenatedEnergy,
    EnergyPrior,
    GaussianChain,
    HierarchicalPrior,
    LayerEnergies,
    MLPEnergy,
)
from lebm.models.chain_space import ChainSpace, NoiseSpace
from lebm.models.frozen import frozen
from lebm.samplers import Langevin

BATCH, STEPS = 100, 60
SIZES = {
    "svhn-5x10": ([10] * 5, [100, 100]),
    "mnist-3x2": ([2] * 3, [100, 100]),
    "cifar10-128-100": ([128, 100], [200, 200]),
}


def chain(space: ChainSpace, device: str) -> Callable[[], Tensor]:
    space.prior.to(device)
    sampler, start = Langevin(STEPS, 0.3), torch.randn(BATCH, space.prior.latent_dim, device=device)

    def run() -> Tensor:
        with frozen(space.prior):
            return space.latents(sampler(space.target(), start))

    return run


def list_of_layers(energy: ConcatenatedEnergy, sizes: list[int], device: str) -> Callable[[], list[Tensor]]:
    """The released form: a list of tensors, one gradient call, one update a layer."""
    energy = energy.to(device)
    starts = [torch.randn(BATCH, size, device=device) for size in sizes]

    def run() -> list[Tensor]:
        layers = starts
        with frozen(energy):
            for _ in range(STEPS):
                layers = [layer.detach().requires_grad_() for layer in layers]
                slopes = torch.autograd.grad(energy(torch.cat(layers, dim=1)).sum(), layers)
                moved = zip(layers, slopes, strict=True)
                layers = [
                    z.detach() - 0.5 * 0.3**2 * (slope + z.detach()) + 0.3 * torch.randn_like(z)
                    for z, slope in moved
                ]
        return layers

    return run


def measure(name: str, rounds: int, device: str) -> dict:
    sizes, hidden = SIZES[name]
    energies = LayerEnergies([MLPEnergy(size, hidden, activation="leaky_relu") for size in sizes])
    conditional = HierarchicalPrior(energies, GaussianChain(sizes))
    single = EnergyPrior(MLPEnergy(sum(sizes), hidden, activation="leaky_relu", spectral_norm=True))
    joint = ConcatenatedEnergy(sizes, hidden)
    variants = {
        "single layer": chain(ChainSpace(single), device),
        "concatenation": chain(ChainSpace(EnergyPrior(joint)), device),
        "conditional, latents": chain(ChainSpace(conditional), device),
        "conditional, noise": chain(NoiseSpace(conditional), device),
        "list of tensors": list_of_layers(joint, sizes, device),
    }
    timings = interleave(variants, rounds, warm_up=2)
    of_single = {
        variant: sorted(1 / ratio for ratio in timings.ratio(variant, "single layer")) for variant in variants
    }
    return {
        "size": name,
        "milliseconds": {variant: 1e3 * timings.median(variant) for variant in variants},
        "of single": of_single,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report: dict = {"machine": machine(), "batch": BATCH, "steps": STEPS, "chains": []}
    print(report["machine"])
    for name in SIZES:
        row = measure(name, options.rounds, options.device)
        report["chains"].append(row)
        for variant, time in row["milliseconds"].items():
            low, middle, high = row["of single"][variant]
            print(
                f"{name:18}{variant:24}{time:8.1f} ms{middle:8.2f} ({low:.2f} to {high:.2f}) of a single"
                " layer",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
