"""Time of a training step of `multistage_nce/mnist` against `latent_mle/mnist`: same generator, encoder and
batch.

    OMP_NUM_THREADS=1 python -m benchmarks.method_steps --json results/method_steps.json    # two minutes

A later stage has more networks in its chain, so each number of finished stages is a variant of its own. The
variants take turns; ratios are taken inside a round."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.timing import interleave, machine, quartiles
from lebm import from_recipe
from lebm.estimators import LatentEstimator, MultiStageNCE

MLE, NCE, BATCH, STEPS = "latent_mle/mnist", "multistage_nce/mnist", 100, 10


def stepper(model: LatentEstimator) -> Callable[[], None]:
    """A function that takes ten training steps on made-up images, as a Trainer does."""
    optimizer, _ = model.optimizer_settings.build(model.networks(), fused=True)
    x = 2 * torch.rand(BATCH, 1, 28, 28, generator=torch.Generator().manual_seed(0)) - 1
    batch = {"x": x, "index": torch.arange(BATCH)}
    model.train()

    def run() -> None:
        for number in range(STEPS):
            for _ in model.updates():
                optimizer.zero_grad()
                model.loss(batch, number).backward()
                optimizer.step()

    return run


def at_stage(finished: int) -> LatentEstimator:
    """The model of the recipe with a number of finished stages."""
    model, _ = from_recipe(NCE)
    assert isinstance(model, MultiStageNCE)
    for _ in range(finished):
        torch.nn.init.normal_(model.prior.tilt.active.net[-1].weight, std=0.05)
        model.prior.tilt.switch()
    return model


def measured(rounds: int) -> dict[str, object]:
    """Milliseconds per step and ratios to ``latent_mle/mnist``, with quartiles."""
    one, _ = from_recipe(MLE)
    stages = range(at_stage(0).prior.tilt.max_stages)  # type: ignore[union-attr]
    variants = {MLE: stepper(one), **{str(count): stepper(at_stage(count)) for count in stages}}
    timings = interleave(variants, rounds, warm_up=2)
    ratios = {
        str(count): [a / b for a, b in zip(timings.seconds[str(count)], timings.seconds[MLE], strict=True)]
        for count in stages
    }
    mean = [statistics.mean(values) for values in zip(*ratios.values(), strict=True)]
    return {
        "machine": machine(),
        "rounds": rounds,
        "milliseconds": {name: 1e3 * timings.median(name) / STEPS for name in variants},
        "ratio": {name: quartiles(values) for name, values in {**ratios, "mean": mean}.items()},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    found = measured(chosen.rounds)
    text = json.dumps(found, indent=1)
    print(text)
    if chosen.json:
        chosen.json.write_text(text + "\n")
