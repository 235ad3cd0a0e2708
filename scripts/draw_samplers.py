"""Draw the pictures of docs/samplers.md: python scripts/draw_samplers.py (half a minute)."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from lebm.models import StandardNormal
from lebm.samplers import (
    HMC,
    MALA,
    AnnealedImportanceSampling,
    Langevin,
    Masked,
    ParallelTempering,
    PersistentChains,
    Sampler,
    SamplingImportanceResampling,
    autocorrelation,
)

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"


def two_modes(z: Tensor) -> Tensor:
    centre = torch.tensor([3.0, 0.0])
    left, right = (-0.5 * (z + sign * centre).square().sum(1) for sign in (1, -1))
    return torch.logaddexp(math.log(0.3) + left, math.log(0.7) + right)


def banana(z: Tensor) -> Tensor:
    return -0.5 * z[:, 0].square() - 2.0 * (z[:, 1] - 0.7 * (z[:, 0].square() - 1)).square()


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def contours(axis: plt.Axes, log_density: Callable[[Tensor], Tensor], span: float = 4.5) -> None:
    line = torch.linspace(-span, span, 121)
    grid = torch.cartesian_prod(line, line)
    density = log_density(grid).exp().reshape(121, 121).T
    axis.contour(
        line, line, density / density.max(), levels=[0.02, 0.1, 0.3, 0.6, 0.9], colors="0.6", linewidths=0.7
    )
    axis.set(xlim=(-span, span), ylim=(-span, span), xticks=[], yticks=[], aspect="equal")


def cloud(
    axis: plt.Axes, sampler: Sampler, log_density: Callable[[Tensor], Tensor], start: Tensor, title: str
) -> None:
    contours(axis, log_density)
    ends = sampler(log_density, start, source(1))
    axis.scatter(*ends.T, s=4, alpha=0.5, linewidths=0)
    axis.set_title(title, fontsize=9)


def draw_bias() -> None:
    """Variance of Langevin chains on N(0, 1) against the closed form."""
    sizes = torch.linspace(0.1, 1.8, 18)
    found = [
        Langevin(math.ceil(16 / float(s) ** 2), float(s))(
            lambda z: -0.5 * z.square().sum(1), torch.zeros(4000, 2), source()
        ).var()
        for s in sizes
    ]
    exact = [
        MALA(max(200, math.ceil(16 / float(s) ** 2)), float(s))(
            lambda z: -0.5 * z.square().sum(1), torch.zeros(4000, 2), source()
        ).var()
        for s in sizes
    ]
    _, axis = plt.subplots(figsize=(5, 3))
    fine = torch.linspace(0.05, 1.85, 200)
    axis.plot(fine, 1 / (1 - fine**2 / 4), color="0.6", label="$1 / (1 - s^2/4)$")
    axis.plot(sizes, found, "o", ms=4, label="Langevin")
    axis.plot(sizes, exact, "s", ms=4, label="MALA")
    axis.set(xlabel="step size s", ylabel="variance of the chain, target 1", ylim=(0.8, 4))
    axis.legend(frameon=False)
    save("samplers_bias")


def draw_clouds() -> None:
    """Where 600 chains end: the curved target, and the two modes started in one of them."""
    _, axes = plt.subplots(2, 4, figsize=(11, 5.6))
    start = 0.3 * torch.randn(600, 2, generator=source())
    cloud(axes[0, 0], Langevin(60, 0.2), banana, start, "Langevin, 60 steps of 0.2")
    cloud(axes[0, 1], Langevin(60, 0.5), banana, start, "Langevin, 60 steps of 0.5: too wide")
    cloud(axes[0, 2], MALA(60, 0.7), banana, start, "MALA, 60 steps of 0.7")
    cloud(axes[0, 3], HMC(12, 0.35, leapfrog_steps=5), banana, start, "HMC, 12 x 5 leapfrog steps")
    left = start - torch.tensor([3.0, 0.0])
    cloud(axes[1, 0], MALA(200, 0.7), two_modes, left, "MALA, 200 steps, started left")
    cloud(
        axes[1, 1],
        ParallelTempering(MALA(1, 0.7), [1.0, 3.0, 9.0], 200),
        two_modes,
        left,
        "tempered, 3 replicas, 200 steps",
    )
    candidates = SamplingImportanceResampling(64, 3, shared_target=True)
    cloud(
        axes[1, 2],
        candidates,
        two_modes,
        torch.randn(600, 2, generator=source()),
        "importance resampling, 3 x 64",
    )
    given = torch.cat([torch.linspace(-3, 3, 600).unsqueeze(1), torch.zeros(600, 1)], dim=1)
    cloud(
        axes[1, 3],
        Masked(MALA(60, 0.6), [True, False]),
        banana,
        given,
        "masked: second coordinate given the first",
    )
    save("samplers_clouds")


def draw_mixing() -> None:
    """Autocorrelation by gradient evaluation on a Gaussian with standard deviations 1 and 0.1."""
    scales = torch.tensor([1.0, 0.1])
    target = lambda z: -0.5 * (z / scales).square().sum(1)  # noqa: E731
    chains = {
        "Langevin, s = 0.1": (Langevin(1, 0.1), 1),
        "Langevin, preconditioned": (Langevin(1, 0.9, preconditioner=[1.0, 0.01]), 1),
        "HMC, 10 leapfrog steps": (HMC(1, 0.12, leapfrog_steps=10), 10),
    }
    _, axis = plt.subplots(figsize=(5, 3))
    for name, (sampler, cost) in chains.items():
        state, draws, generator = scales * torch.randn(100, 2, generator=source()), [], source(1)
        for _ in range(3000 // cost):
            state = sampler(target, state, generator)
            draws.append(state[:, 0])
        correlation = autocorrelation(torch.stack(draws), max_lag=200 // cost)
        axis.plot([cost * lag for lag in range(len(correlation))], correlation, label=name)
    axis.axhline(0, color="0.8", lw=0.7)
    axis.set(xlabel="gradient evaluations", ylabel="autocorrelation, wide direction")
    axis.legend(frameon=False, fontsize=8)
    save("samplers_mixing")


def draw_persistence() -> None:
    """Mean log-density of short chains: started anew at every call, and persistent."""
    anew, kept = Langevin(5, 0.15), PersistentChains(Langevin(5, 0.15), restart_rate=0.01)
    target = lambda z: -2.0 * (z - 3.0).square().sum(1)  # noqa: E731
    curves: dict[str, list[float]] = {"fresh starts": [], "persistent": [], "long run": []}
    long_run = target(Langevin(2000, 0.15)(target, torch.zeros(400, 2), source())).mean().item()
    for call in range(60):
        start = torch.randn(400, 2, generator=source(call))
        curves["fresh starts"].append(target(anew(target, start, source(100 + call))).mean().item())
        curves["persistent"].append(target(kept(target, start, source(100 + call))).mean().item())
        curves["long run"].append(long_run)
    _, axis = plt.subplots(figsize=(5, 3))
    for (name, values), style in zip(curves.items(), ("-", "-", "--"), strict=True):
        axis.plot(values, style, label=name)
    axis.set(xlabel="call of 5 steps", ylabel="mean log-density at the end")
    axis.legend(frameon=False)
    save("samplers_persistence")


def draw_bracket() -> None:
    """Both bounds on log Z against the number of levels, for N(0, I) tilted to a fifth of its variance in ten
    dimensions.
    """
    base = StandardNormal(10)
    tilted = lambda z: base.log_density(z) - 2.0 * z.square().sum(1)  # noqa: E731
    samples = base.reference(200, source()) / 5**0.5
    levels = [1, 2, 4, 8, 16, 32, 64]
    brackets = [
        AnnealedImportanceSampling(MALA(1, 0.4), count).bracket(tilted, base, samples, source(2))
        for count in levels
    ]
    _, axis = plt.subplots(figsize=(5, 3))
    for name, side, shift in (("forward", "below", 0.95), ("reverse", "above", 1.05)):
        bounds = [getattr(bracket, side) for bracket in brackets]
        middle = [float(bound.estimate) for bound in bounds]
        spread = [[float(b.estimate - b.low) for b in bounds], [float(b.high - b.estimate) for b in bounds]]
        axis.errorbar(
            [shift * count for count in levels], middle, spread, fmt="o", ms=4, capsize=2, label=name
        )
    axis.axhline(-5 * math.log(5), color="0.6", label="exact")
    axis.set(xscale="log", xlabel="levels", ylabel="log Z, 95% intervals")
    axis.legend(frameon=False)
    save("samplers_bracket")


def save(name: str) -> None:
    plt.tight_layout()
    IMAGES.mkdir(parents=True, exist_ok=True)
    plt.savefig(IMAGES / f"{name}.png", dpi=110, metadata={"Software": None})
    plt.close()
    print(IMAGES.name + f"/{name}.png")


if __name__ == "__main__":
    draw_bias()
    draw_clouds()
    draw_mixing()
    draw_persistence()
    draw_bracket()
