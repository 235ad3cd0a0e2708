"""No Lightning and no Trainer: energies, samplers and density ratios in a plain loop of PyTorch.

The example trains an energy-based density of points in the plane by maximum likelihood, then compares data
and draws of N(0, I) by a density ratio. Runs in a few seconds on a CPU.
"""

from __future__ import annotations

import torch

from lebm.density_ratio import Training, logistic
from lebm.models import EnergyPrior, MLPEnergy
from lebm.samplers import Langevin

STEPS = 120


def two_moons(n: int, generator: torch.Generator) -> torch.Tensor:
    """Return points ``(n, 2)`` on two half circles, with noise of 0.1."""
    angle = torch.rand(n, generator=generator) * torch.pi
    moon = (torch.rand(n, generator=generator) < 0.5).float()
    x = angle.cos() * (1 - 2 * moon) + moon - 0.5
    y = angle.sin() * (1 - 2 * moon) + 0.5 * moon - 0.25
    return torch.stack([x, y], dim=1) + 0.1 * torch.randn(n, 2, generator=generator)


def train(points: torch.Tensor, generator: torch.Generator) -> EnergyPrior:
    """Train by maximum likelihood: lower the energy of data, raise it at the ends of chains from N(0, I)."""
    torch.manual_seed(0)
    prior = EnergyPrior(MLPEnergy(latent_dim=2, hidden=[64, 64]))
    optimizer = torch.optim.Adam(prior.parameters(), lr=3e-3, betas=(0.5, 0.999))
    chain = Langevin(steps=40, step_size=0.2)
    for step in range(STEPS):
        positives = points[torch.randint(len(points), (200,), generator=generator)]
        negatives = chain(prior.target(), prior.reference(200, generator), generator)  # detached
        loss = prior.energy(positives).mean() - prior.energy(negatives).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}: energy gap {loss.item():+.3f}")
    return prior


def main() -> None:
    """Train, sample, and estimate the divergence of the data from N(0, I) by a classifier."""
    generator = torch.Generator().manual_seed(0)
    points = two_moons(2000, generator)
    prior = train(points, generator)

    z, info = Langevin(steps=200, step_size=0.2).run(
        prior.target(), prior.reference(1000, generator), generator
    )
    print("chain:", {name: round(value.item(), 3) for name, value in info.scalars().items()})
    for name, rows in (("data", points), ("draws", z)):
        print(f"standard deviations of {name}:", [round(value, 2) for value in rows.std(0).tolist()])

    ratio = logistic(
        points,
        prior.reference(2000, generator),
        MLPEnergy(2, [64, 64], output_bias=True),
        Training(steps=200),
        generator=generator,
    )
    print(f"KL divergence of the data from N(0, I): about {ratio(points).mean().item():.2f} nats")


if __name__ == "__main__":
    main()
