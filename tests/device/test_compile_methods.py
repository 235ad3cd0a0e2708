"""The compiled chains of every method: no graph is broken, and after the second step none is added.

Evaluation in between, a smaller last batch, and the start of a stage may add graphs once. What each adds is
in the table. The backend ``eager`` runs a traced graph as it is.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lebm.checkpoint.rebuild import build
from lebm.estimators import LatentModel, MultiStageNCE
from tests.device.test_compile import BATCH, LAST, _traced, breaks, graphs
from tests.reliability.methods import KINDS, METHODS, SHAPE, description

__all__ = ["_traced"]


def compiled(entry: Any) -> Any:
    """The description with all its Langevin chains compiled, in blocks of two steps."""
    if isinstance(entry, dict):
        changed = {name: compiled(value) for name, value in entry.items()}
        if entry.get("class_path") == "lebm.samplers.Langevin":
            changed["init_args"] |= {"compile": True, "unroll": 2}
        return changed
    return [compiled(item) for item in entry] if isinstance(entry, list) else entry


def model_of(name: str, device: torch.device) -> LatentModel:
    torch.manual_seed(0)
    entry = compiled(description(name))
    return build(entry, LatentModel).to(device)  # type: ignore[type-abstract]


def batch(rows: int, device: torch.device) -> dict[str, Tensor]:
    draws = torch.rand(rows, *SHAPE, generator=torch.Generator().manual_seed(rows))
    return {"x": (2 * draws - 1).to(device), "index": torch.arange(rows, device=device)}


class Run:
    """Counts the graphs that each event of a training adds."""

    def __init__(self, model: LatentModel, device: torch.device) -> None:
        self.model, self.device, self.step = model, device, 0
        self.optimizer, _ = model.optimizer_settings.build(model.networks(), fused=False)

    def train(self, rows: int) -> int:
        before = graphs()
        self.model.train()
        for _ in self.model.updates():
            self.optimizer.zero_grad()
            with self.model.noting(self.step % 2 == 1):  # every second step is logged
                self.model.loss(batch(rows, self.device), self.step).backward()
            self.optimizer.step()
        self.step += 1
        return graphs() - before

    def evaluate(self) -> int:
        before = graphs()
        self.model.eval()
        with torch.inference_mode():
            for rows in (BATCH, LAST):
                self.model.validation_step(batch(rows, self.device), 0)
            self.model.sample(BATCH)
        return graphs() - before


EVALUATION = {"multistage_nce": 5, "dual_mcmc": 2, "dual_mcmc_alternate": 2}
"""Graphs of the first evaluation, where training has not made them: for other targets, lengths and starts.

``MultiStageNCE`` evaluates the prior with the stage that is being trained, and trains against the one before.
"""
OTHER_LENGTHS = {"joint_hierarchical+Remembered": 4, "joint_hierarchical+Taught": 4}
WITHOUT_CHAINS = {"multistage_nce+Frozen": 1, "multistage_nce+Variational": 1}
"""The same, where an encoder takes the place of the posterior chain."""


QUICK = ("latent_mle", "multistage_nce", "joint_hierarchical", "dual_mcmc")
"""One per method; the others of each are other schemes of the same chains."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in [*METHODS, *KINDS]],
)
def test_a_method_compiles_nothing_after_its_second_step(
    name: str, device: torch.device, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(model_of(name, device), device)
    first = run.train(BATCH)
    assert [run.train(BATCH) for _ in range(3)] == [0, 0, 0]
    assert run.train(LAST) == first  # each graph for one more shape
    assert [run.train(rows) for rows in (BATCH, LAST)] == [0, 0]
    others = WITHOUT_CHAINS | OTHER_LENGTHS
    assert run.evaluate() == others.get(name, EVALUATION.get(name.split("+")[0], 0))
    assert [run.train(BATCH), run.train(LAST), run.evaluate(), run.train(BATCH)] == [0, 0, 0, 0]
    assert breaks() == 0
    assert "recompile_limit" not in caplog.text  # beyond it torch runs a chain as it is


@pytest.mark.parametrize(
    "name", [pytest.param("multistage_nce", marks=pytest.mark.slow), "multistage_nce+Variational"]
)
def test_a_stage_adds_its_graphs_once(
    name: str, device: torch.device, caplog: pytest.LogCaptureFixture
) -> None:
    """Its product of energies is another function: one graph per chain, shape and kind of block."""
    per_stage, evaluated = (1, 1) if name in WITHOUT_CHAINS else (3, 5)
    run = Run(model_of(name, device), device)
    run.train(BATCH), run.train(LAST), run.evaluate()
    assert isinstance(run.model, MultiStageNCE)
    for _ in range(2):
        run.model.prior.tilt.switch()
        assert [run.train(BATCH) for _ in range(3)] == [per_stage, 0, 0]
        assert [run.train(LAST), run.evaluate()] == [per_stage, evaluated]
        assert [run.train(BATCH), run.train(LAST), run.evaluate(), run.train(BATCH)] == [0, 0, 0, 0]
    assert breaks() == 0
    assert "recompile_limit" not in caplog.text
