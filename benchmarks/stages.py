"""What finished stages cost: the prior's gradient with K of them, and a training step of MultiStageNCE by
part.

    python -m benchmarks.stages                                     # a minute or two
    python -m benchmarks.stages --device cuda --json stages.json

``K`` stages are evaluated as one batched network (``RatioProduct``); beside it the same K networks called one
after another. Variants are interleaved, ratios taken inside a round, medians with quartiles."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.timing import Timings, interleave, machine
from lebm.estimators import AdamGroups, FixedStages, LatentMLE, MultiStageNCE
from lebm.models import EnergyPrior, GaussianLikelihood, MLPEnergy, MLPGenerator, RatioPrior, RatioProduct
from lebm.samplers import Langevin, log_density_gradient

STAGES, BATCH = [1, 2, 4, 8], 512
SIZES = {"d100-200": (100, 200), "d8-64": (8, 64)}


def staged_prior(stages: int, dim: int, width: int, max_stages: int = 8) -> RatioPrior:
    """A prior whose stages hold arbitrary weights."""
    prior = RatioPrior(RatioProduct(MLPEnergy(dim, [width, width], output_bias=True), max_stages))
    for _ in range(stages):
        torch.nn.init.normal_(prior.tilt.active.net[-1].weight, std=0.05)
        prior.tilt.switch()
    return prior


def gradient_cost(size: str, rounds: int, device: str) -> dict:
    """Seconds and ratios of the gradient of the prior's log-density."""
    dim, width = SIZES[size]
    z = torch.randn(BATCH, dim, device=device)
    separate = [MLPEnergy(dim, [width, width], output_bias=True).to(device) for _ in range(max(STAGES))]
    variants: dict[str, Callable[[], object]] = {}
    for stages in STAGES:
        prior = staged_prior(stages, dim, width).to(device)

        def one_by_one(state: Tensor, stages: int = stages, prior: RatioPrior = prior) -> Tensor:
            return prior.base.log_density(state) - sum(network(state) for network in separate[:stages])

        so_far = prior.log_density_so_far()
        variants[f"batched {stages}"] = lambda target=so_far: log_density_gradient(target, z)
        variants[f"separate {stages}"] = lambda target=one_by_one: log_density_gradient(target, z)
    timings = interleave(variants, rounds, warm_up=3)
    return {
        "size": size,
        "milliseconds": {name: 1e3 * timings.median(name) for name in variants},
        "of one stage": {stages: _spread(timings, f"batched {stages}", "batched 1") for stages in STAGES},
        "of separate calls": {
            stages: _spread(timings, f"batched {stages}", f"separate {stages}") for stages in STAGES
        },
    }


def _spread(timings: Timings, variant: str, reference: str) -> list[float]:
    """Quartiles of the time of a variant over that of the reference."""
    return sorted(1 / ratio for ratio in timings.ratio(variant, reference))


def step_cost(rounds: int, device: str, batch: int = 100) -> dict:
    """Milliseconds of the parts of a training step at the size of the MNIST recipes, with 0, 1, 3 and 7
    finished stages.
    """
    x = torch.rand(batch, 1, 28, 28, device=device) * 2 - 1
    optimizer = AdamGroups({"generator": 1e-3, "energy": 1e-3})
    parts: dict[str, Callable[[], object]] = {}

    def likelihood() -> GaussianLikelihood:
        return GaussianLikelihood(MLPGenerator(8, [1, 28, 28]), 0.3)

    def add(
        name: str, model: LatentMLE | MultiStageNCE, target: Callable, negatives: Callable[[], Tensor]
    ) -> None:
        model.to(device)
        adam, _ = model.optimizer_settings.build(model.networks(), fused=True)
        counter = iter(range(10**9))

        def whole() -> None:
            adam.zero_grad()
            model.loss({"x": x, "index": torch.arange(batch)}, next(counter)).backward()
            adam.step()

        parts[f"{name}: posterior"] = lambda: model.infer(x, {"x": x}, 0).z
        parts[f"{name}: negatives"] = negatives
        parts[f"{name}: step"] = whole

    chains = (Langevin(60, 0.4), Langevin(20, 0.1))
    mle = LatentMLE(likelihood(), EnergyPrior(MLPEnergy(8)), *chains, optimizer)
    add("LatentMLE", mle, mle.posterior, lambda: mle.negatives(batch, 0))
    for stages in (0, 1, 3, 7):
        model = MultiStageNCE(
            likelihood(), staged_prior(stages, 8, 200), *chains, optimizer, FixedStages(10**9)
        )
        add(
            f"MultiStageNCE, {stages} finished",
            model,
            model.posterior_target,
            lambda model=model: model.negatives(batch, 0),
        )
    timings = interleave(parts, rounds, warm_up=2)
    report: dict = {name: 1e3 * timings.median(name) for name in parts}
    for stages in (0, 1, 3, 7):
        name = f"MultiStageNCE, {stages} finished: step"
        report[f"{name} of LatentMLE's"] = _spread(timings, name, "LatentMLE: step")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report: dict = {"machine": machine(), "batch": BATCH, "gradient": [], "step": {}}
    print(report["machine"])
    for size in SIZES:
        row = gradient_cost(size, options.rounds, options.device)
        report["gradient"].append(row)
        for stages in STAGES:
            one, calls = row["of one stage"][stages], row["of separate calls"][stages]
            time = row["milliseconds"][f"batched {stages}"]
            print(
                f"{size:9}{stages} stages {time:7.2f} ms, {one[1]:.2f} of one stage, {calls[1]:.2f} of"
                " separate calls",
                flush=True,
            )
    report["step"] = step_cost(max(5, options.rounds // 2), options.device)
    for name, value in report["step"].items():
        print(
            f"{name:45}{value:8.1f} ms"
            if isinstance(value, float)
            else f"{name:45}{value[1]:8.2f} ({value[0]:.2f} to {value[2]:.2f})"
        )
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
