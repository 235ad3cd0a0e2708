"""Time of a training step of `multistage_nce/mnist_normal_base` against `latent_mle/mnist_normal_base`: same
generator, encoder and batch.

    OMP_NUM_THREADS=1 python -m benchmarks.method_steps --json results/method_steps.json    # five minutes

A later stage has more networks in its chain, so each number of finished stages is a variant of its own. The
variants take turns; ratios are taken inside a round."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.gpu_memory import steps_of
from benchmarks.timing import interleave, machine, quartiles
from lebm import from_recipe
from lebm.estimators import LatentModel, MultiStageNCE
from lebm.samplers import MALA, Langevin, PersistentChains

MLE, NCE, BATCH, STEPS, STAGES = "latent_mle/mnist_normal_base", "multistage_nce/mnist_normal_base", 100, 5, 4
COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.method_steps --json results/method_steps.json"
NARROW, TOGETHER = ", networks half as wide", ", five slots at once"
KERNELS = {
    "10 of Langevin": Langevin(10, 0.4),
    "3 of Langevin": Langevin(3, 0.4),
    "5 of MALA": MALA(5, 0.25),
    "1 of MALA": MALA(1, 0.25),
    f"3 of MALA{NARROW}": MALA(3, 0.25),
    f"1 of MALA{NARROW}": MALA(1, 0.25),
    f"3 of MALA{NARROW}{TOGETHER}": MALA(3, 0.25),
}
WIDE = {"model.init_args.prior.init_args.energy.init_args.active.init_args.hidden": [200, 200]}


def stepper(model: LatentModel) -> Callable[[], None]:
    """A function that takes five training steps on made-up images."""
    step = steps_of(model.train(), BATCH, "cpu")

    def run() -> None:
        for _ in range(STEPS):
            step()

    return run


def at_stage(finished: int, name: str) -> LatentModel:
    """The model of the recipe with a number of finished stages, and another kernel in its pool."""
    model, _ = from_recipe(NCE, settings=None if NARROW in name else WIDE)
    assert isinstance(model, MultiStageNCE)
    model.prior_sampler = PersistentChains(KERNELS[name], slots=20, together=5 if TOGETHER in name else 1)
    for _ in range(finished):
        torch.nn.init.normal_(model.prior.tilt.active.net[-1].weight, std=0.05)
        model.prior.tilt.switch()
    return model


def measured(rounds: int) -> dict[str, object]:
    """Milliseconds per step, and ratios to :data:`MLE` with quartiles, by kernel and stage."""
    one, _ = from_recipe(MLE)
    names = {(kernel, stage): f"{kernel}, stage {stage + 1}" for kernel in KERNELS for stage in range(STAGES)}
    models = {name: at_stage(stage, kernel) for (kernel, stage), name in names.items()}
    variants = {MLE: stepper(one), **{name: stepper(model) for name, model in models.items()}}
    seconds = interleave(variants, rounds, warm_up=2).seconds
    ratios = {
        kernel: [
            [a / b for a, b in zip(seconds[names[kernel, stage]], seconds[MLE], strict=True)]
            for stage in range(STAGES)
        ]
        for kernel in KERNELS
    }
    return {
        "command": COMMAND,
        "machine": machine(),
        "rounds": rounds,
        "milliseconds": 1e3 * statistics.median(seconds[MLE]) / STEPS,
        "ratio": {
            kernel: [
                quartiles(stage)
                for stage in (*stages, [statistics.mean(row) for row in zip(*stages, strict=True)])
            ]
            for kernel, stages in ratios.items()
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=45)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    found = measured(chosen.rounds)
    text = json.dumps(found, indent=1)
    print(text)
    if chosen.json:
        chosen.json.write_text(text + "\n")
