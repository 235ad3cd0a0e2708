"""The guards against NaN; the runs they end are in tests/cli/test_training.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lebm.callbacks.guards import NonFiniteError, StopOnNonFinite


def trainer(step: int, every: int = 1, votes: bool | None = None) -> Any:
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=step))
    strategy = SimpleNamespace(reduce_boolean_decision=lambda bad, all: votes)
    return SimpleNamespace(
        global_step=step, log_every_n_steps=every, fit_loop=loop, world_size=1 if votes is None else 2, strategy=strategy
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_stops_at_the_step(value: float) -> None:
    guard = StopOnNonFinite()
    guard.on_before_backward(trainer(6), None, torch.tensor(1.0))  # type: ignore[arg-type]
    with pytest.raises(NonFiniteError, match=f"the loss is {value} at step 7"):
        guard.on_before_backward(trainer(7), None, torch.tensor(value))  # type: ignore[arg-type]


def test_looks_rarely_where_looking_waits_for_the_device() -> None:
    guard = StopOnNonFinite()
    elsewhere = torch.empty((), device="meta")
    for step in range(9):
        guard.on_before_backward(trainer(step, every=10), None, elsewhere)  # type: ignore[arg-type]
    with pytest.raises((RuntimeError, NotImplementedError)):  # a meta tensor cannot be looked at, so it was looked at
        guard.on_before_backward(trainer(9, every=10), None, elsewhere)  # type: ignore[arg-type]


def test_processes_decide_together() -> None:
    guard = StopOnNonFinite()
    with pytest.raises(NonFiniteError):
        guard.on_before_backward(trainer(0, votes=True), None, torch.tensor(1.0))  # type: ignore[arg-type]
    guard.on_before_backward(trainer(0, votes=False), None, torch.tensor(1.0))  # type: ignore[arg-type]


def test_names_the_rows_of_broken_data() -> None:
    guard = StopOnNonFinite()
    x = torch.zeros(4, 1, 2, 2)
    x[1, 0, 0, 0], x[3, 0, 1, 1] = float("nan"), float("inf")
    guard.on_train_batch_start(None, None, {"x": x, "index": torch.tensor([9, 5, 2, 7])}, 0)  # type: ignore[arg-type]
    with pytest.raises(NonFiniteError, match=r"the data of row 5, 7 hold values that are not finite at step 2"):
        guard.on_before_backward(trainer(2), None, torch.tensor(float("nan")))  # type: ignore[arg-type]


def test_no_broken_weight_is_saved() -> None:
    guard = StopOnNonFinite()
    state = {"a": torch.ones(2), "n": torch.tensor(3), "b": torch.tensor([1.0, float("nan")])}
    with pytest.raises(NonFiniteError, match="b is not finite at step 4"):
        guard.on_save_checkpoint(trainer(4), None, {"state_dict": state})  # type: ignore[arg-type]
    del state["b"]
    guard.on_save_checkpoint(trainer(4), None, {"state_dict": state})  # type: ignore[arg-type]
