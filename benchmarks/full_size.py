"""A recipe with its real networks and image size, for two rows: a step, an evaluation batch, samples.

Chains take one step, because the real ones take minutes of a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import lebm
from lebm.estimators import LatentModel
from lebm.models.observations import event_shape
from lebm.models.text_likelihood import UNKNOWN, CategoricalLikelihood
from lebm.plots.grids import image_grid
from lebm.samplers.base import Sampler


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
