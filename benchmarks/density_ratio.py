"""Estimates of the KL between Gaussians in 20 dimensions, by every ratio estimator under equal conditions.

    python -m benchmarks.density_ratio                      # 35 minutes on one thread; skips done cells
    python -m benchmarks.density_ratio --seeds 1 --kl 1 20  # a part of it

There are two families against N(0, I), with the requested KL: a mean shift N(m, I) and a sharpening N(0, vI).
Every estimator trains on the same 50,000 samples of the target and on fresh draws of N(0, I) (or of its
waymarks, or of its own prior so far), with equal networks and numbers of optimiser steps. Every figure uses
the same 10,000 held-out samples of the target."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from scipy.optimize import brentq
from torch import Tensor

from lebm.density_ratio.classifiers import Training, logistic, sequential, telescoping
from lebm.models import MLPEnergy, RatioPrior, RatioProduct
from lebm.run.folder import hardware, versions
from lebm.samplers import MALA, AnnealedImportanceSampling

DIM, HIDDEN, STAGES, STEPS, TRAIN, TEST = 20, [64, 64], 6, 3000, 50_000, 10_000
Figures = dict[str, list[float | None]]
METHODS = ["single", "telescoping, exact", "telescoping, mixed", "sequential"]


class Problem:
    """A Gaussian ``N(mean, scale^2 I)`` with a known divergence from N(0, I)."""

    def __init__(self, family: str, kl: float) -> None:
        self.mean = math.sqrt(2 * kl / DIM) if family == "shift" else 0.0
        self.scale = 1.0 if family == "shift" else math.sqrt(_variance(kl))

    def draw(self, n: int, generator: torch.Generator, along: float = 1.0) -> Tensor:
        """Return samples, or samples of a Gaussian a part ``along`` the path from N(0, I)."""
        return along * self.mean + self.scale**along * torch.randn(n, DIM, generator=generator)

    def log_ratio(self, z: Tensor) -> Tensor:
        scaled = (z - self.mean) / self.scale
        return (0.5 * z.square() - 0.5 * scaled.square() - math.log(self.scale)).sum(dim=1)


def _variance(kl: float) -> float:
    """Return the v < 1 at which ``KL(N(0, vI) || N(0, I))`` is ``kl``."""
    return brentq(lambda v: 0.5 * DIM * (v - 1 - math.log(v)) - kl, 1e-9, 1.0, xtol=1e-12)


def _network() -> MLPEnergy:
    return MLPEnergy(DIM, HIDDEN, output_bias=True)


def measure(method: str, family: str, kl: float, seed: int) -> Figures:
    """Return the figures of one estimator."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    problem = Problem(family, kl)
    samples = problem.draw(TRAIN + TEST, generator)
    whole = Training(STEPS, held_out=TEST / (TRAIN + TEST))
    each = Training(STEPS // STAGES, held_out=TEST / (TRAIN + TEST))
    tested = samples[TRAIN:]
    start = time.perf_counter()

    def noise(n: int, source: object) -> Tensor:
        return torch.randn(n, DIM, generator=generator)

    def between(draw: Callable[[int, float], Tensor]) -> list:
        marks = [position / STAGES for position in range(1, STAGES)]
        return [noise, *((lambda n, source, mark=mark: draw(n, mark)) for mark in marks), samples]

    def mixed(n: int, mark: float) -> Tensor:
        chosen = samples[torch.randint(TRAIN, (n,), generator=generator)]
        return math.sqrt(1 - mark**2) * noise(n, None) + mark * chosen

    found: Figures = {}
    if method == "single":
        ratio = logistic(samples, noise, _network(), whole, generator)
    elif method.startswith("telescoping"):
        path = mixed if method.endswith("mixed") else lambda n, mark: problem.draw(n, generator, mark)
        ratio = telescoping(between(path), RatioProduct(_network(), STAGES), each, generator)
    else:
        prior = RatioPrior(RatioProduct(_network(), STAGES))
        annealing = AnnealedImportanceSampling(MALA(2, 0.8), 40)
        ratio = sequential(samples, prior, each, annealing=annealing, burn_in=20, generator=generator)
        constant = prior.log_constant()
        found["log_z"] = [float(end) for end in (constant.estimate, constant.low, constant.high)]
        found["ess"] = [float(constant.ess), None, None]
    seconds, quality = time.perf_counter() - start, ratio.quality
    found[method] = [quality.kl, quality.kl_low, quality.kl_high]
    found[f"{method}/covers"] = [float(quality.kl_low <= kl <= quality.kl_high), None, None]
    found[f"{method}/seconds"] = [seconds, None, None]
    with torch.no_grad():
        found["truth"] = [problem.log_ratio(tested).mean().item(), None, None]
        if method == "sequential":
            found["sequential, raw"] = [-ratio.energy(tested).mean().item(), None, None]
    return found


def cell(family: str, kl: float, seed: int) -> dict[str, Any]:
    """Return the line of results/ratios.jsonl for one problem and seed: every estimator."""
    figures: Figures = {}
    for method in METHODS:
        figures |= measure(method, family, kl, seed)
    return {
        "cell": "ratios",
        "settings": {"family": family, "kl": kl, "seed": seed},
        "command": "python -m benchmarks.density_ratio",
        "cpu_minutes": sum(figures[f"{method}/seconds"][0] or 0.0 for method in METHODS) / 60,
        "versions": versions(),
        "hardware": hardware(),
        "started": datetime.now().isoformat(timespec="seconds"),
        "figures": figures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kl", type=float, nargs="+", default=[1, 5, 10, 20, 40])
    parser.add_argument("--family", nargs="+", default=["shift", "sharpening"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("results/ratios.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = options.json.read_text().splitlines() if options.json.exists() else []
    done = [json.loads(line)["settings"] for line in lines]
    for seed, family, kl in itertools.product(range(options.seeds), options.family, options.kl):
        if {"family": family, "kl": kl, "seed": seed} not in done:
            new = cell(family, kl, seed)
            with options.json.open("a") as file:
                file.write(json.dumps(new) + "\n")
            values = ", ".join(f"{method} {new['figures'][method][0]:.2f}" for method in METHODS)
            print(f"{family}, KL {kl:g}, seed {seed}: {values}", flush=True)


if __name__ == "__main__":
    main()
