"""Every recipe with its real networks and image size: a training step, an evaluation batch, samples."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import lebm
from benchmarks.steps import EXPERIMENTS, batch_of
from lebm.plots.grids import image_grid
from lebm.samplers.base import Sampler
from tests.recipes.test_recipes import build

FIDELITY = Path(__file__).parents[2] / "docs" / "fidelity.md"
COUNTS = {
    name: (int(released.replace(",", "")), int(ours.replace(",", "")))
    for name, released, ours in re.findall(
        r"^\| `([^`]+)` \| ([\d,]+) \| ([\d,]+) \|", FIDELITY.read_text(), re.MULTILINE
    )
}
"""Parameters of the released networks and of ours, from the table of docs/fidelity.md."""
CONSTANTS = 2
"""Our energies leave out constants that no contrast can learn: one per energy."""


def test_the_table_of_releases_was_read() -> None:
    assert len(COUNTS) == 7
    assert set(COUNTS) <= set(EXPERIMENTS)


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_those_beside_the_release(name: str) -> None:
    released, ours = COUNTS[name]
    model = build(["-c", name]).model
    trained = {id(value): value for part in model.networks().values() for value in part.parameters()}
    assert sum(value.numel() for value in trained.values()) == ours
    assert 0 <= released - ours <= CONSTANTS


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_step_an_evaluation_batch_and_samples_at_full_size(name: str) -> None:
    """Two rows on the CPU; chains take one step, because the real ones take minutes of a CPU."""
    model, _ = lebm.from_recipe(name)
    for part in model.modules():
        if isinstance(part, Sampler):
            part.steps = 1
    before = [value.detach().clone() for value in model.parameters() if value.requires_grad]
    batch, losses = batch_of(model, 2, "cpu"), []
    optimizer, _ = model.optimizer_settings.build(model.networks(), fused=False, epochs=1)
    for _ in model.updates():
        optimizer.zero_grad()
        losses.append(model.loss(batch, 0))
        if losses[-1].requires_grad:  # before its base is fitted an energy alone does not learn
            losses[-1].backward()
        model.on_before_optimizer_step(optimizer)
        optimizer.step()
    assert all(torch.isfinite(loss) for loss in losses)
    after = [value for value in model.parameters() if value.requires_grad]
    learns = any(loss.requires_grad for loss in losses)
    assert learns == any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    model.eval()
    answers, samples = model.validation_step(batch, 0), model.sample(2, steps=1)
    assert answers["z"].shape == (2, model.latent_dim)
    assert torch.isfinite(answers["anomaly_score"]).all()
    assert samples.shape[1:] == batch["x"].shape[1:]
    if samples.dim() == 4:
        assert image_grid(samples).dtype.name == "uint8"
