"""Every recipe with its real networks and image size on the CPU: does it run, and in how much memory?

    python -m benchmarks.full_size                       # results/full_size.json; about 10 minutes
    python -m benchmarks.full_size latent_mle/cifar10    # this recipe again

Two rows: one training step, one evaluation batch and one sample grid, in a process of its own per recipe.
Chains take one step, because the real ones take minutes of a CPU. `make results` then writes the memory into
the cards of docs/gallery.md."""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lebm
from lebm.config import recipes
from lebm.estimators import LatentModel
from lebm.models.observations import event_shape
from lebm.models.text_likelihood import UNKNOWN, CategoricalLikelihood
from lebm.plots.grids import image_grid
from lebm.samplers.base import Sampler

RESULT = Path(__file__).parents[1] / "results" / "full_size.json"


def model_of(name: str) -> LatentModel:
    """The recipe's model, whose chains take one step."""
    model, _ = lebm.from_recipe(name)
    for part in model.modules():
        if isinstance(part, Sampler):
            part.steps = 1
    return model


def batch_of(model: LatentModel, rows: int, device: str) -> dict[str, Tensor]:
    """A batch of the model's kind without content: grey images, points at 0, or sentences of full length."""
    index = torch.arange(rows, device=device)
    shape = event_shape(model.observation_model)
    if shape is not None:
        return {"x": torch.zeros(rows, *shape, device=device), "index": index}
    assert isinstance(model.observation_model, CategoricalLikelihood)
    length = model.observation_model.generator.max_length
    return {"x": torch.full((rows, length), UNKNOWN, device=device), "index": index}


def exercise(model: LatentModel) -> dict[str, Any]:
    """A training step, an evaluation batch and samples of two rows: their results."""
    batch = batch_of(model, 2, "cpu")
    optimizer, _ = model.optimizer_settings.build(model.networks(), fused=False)
    losses: list[Tensor] = []
    for _ in model.updates():
        optimizer.zero_grad()
        losses.append(model.loss(batch, 0))
        if losses[-1].requires_grad:  # before its base is fitted an energy alone does not learn
            losses[-1].backward()
        model.on_before_optimizer_step(optimizer)
        optimizer.step()
    model.eval()
    answers = model.validation_step(batch, 0)
    samples = model.sample(2, steps=1)
    grid = image_grid(samples) if samples.dim() == 4 else None
    return {"batch": batch, "losses": losses, "answers": answers, "samples": samples, "grid": grid}


def mebibytes() -> int:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measure(name: str, answer: Any) -> None:
    """In a process of its own: the peak above what Python, torch and lebm take."""
    torch.set_num_threads(1)
    before = mebibytes()
    exercise(model_of(name))
    answer.put(mebibytes() - before)


def main(names: list[str]) -> None:
    every = list(recipes.experiments())
    found = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    processes = multiprocessing.get_context("fork")  # the imports are there already
    for name in names or every:
        answer = processes.Queue()
        process = processes.Process(target=measure, args=(name, answer))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{name} ended with {process.exitcode}")
        found[name] = answer.get()
        print(name, found[name], flush=True)
        RESULT.write_text(json.dumps({key: found[key] for key in every if key in found}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
