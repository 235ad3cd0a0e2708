"""The part of ``benchmarks.gpu`` that takes three training steps of every recipe at its full size."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

import lebm
from benchmarks.full_size import batch_of
from benchmarks.gpu_task import Task
from lebm.config import recipes
from lebm.estimators import LatentModel

STEPS = 3


def memory(task: Task) -> dict[str, Any]:
    """Peak memory and seconds per step of every recipe; an error line for a recipe that fails."""
    names = list(recipes.experiments())
    if task.dry:
        names = ["quickstart", "multistage_nce/toy2d", "latent_mle/text_small"]
    late, found = task.deadline(), {}
    for name in names:
        if late(1.0) and not task.dry:
            found[name] = {"error": "no time left"}
            continue
        try:
            found[name] = of_recipe(name, task.device, rows=2 if task.dry else None)
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"}
        if task.device == "cuda":
            torch.cuda.empty_cache()
        task.save(found)
    return found


def built(name: str, device: str) -> tuple[LatentModel, int]:
    """The model of a recipe on a device, and the rows of its batches; the data are not opened."""
    model, data = lebm.from_recipe(name)
    return model.to(device), data.batch_size


def steps_of(model: LatentModel, rows: int, device: str) -> Callable[[], None]:
    """A function that takes one training step on made-up rows."""
    optimizer, _ = model.optimizer_settings.build(model.networks(), fused=True)
    batch, done = batch_of(model, rows, device), iter(range(10**9))
    if batch["x"].is_floating_point():
        batch["x"] = 2 * torch.rand_like(batch["x"]) - 1

    def step() -> None:
        number = next(done)
        for _ in model.updates():
            optimizer.zero_grad()
            model.loss(batch, number).backward()
            model.on_before_optimizer_step(optimizer)
            optimizer.step()

    return step


def of_recipe(name: str, device: str, rows: int | None = None) -> dict[str, Any]:
    """Three steps: peak of the allocated memory, and seconds of the last step."""
    model, batch_size = built(name, device)
    rows = rows or batch_size
    step = steps_of(model, rows, device)
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = 0.0
    for _ in range(STEPS):
        synchronize()
        begun = time.perf_counter()
        step()
        synchronize()
        seconds = time.perf_counter() - begun
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return {"rows": rows, "peak_bytes": peak, "step_seconds": seconds}
