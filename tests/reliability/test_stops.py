"""However a run stops, and wherever, the resumed run ends bit for bit where an undisturbed run ends."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, Timer

from lebm import checkpoint
from lebm.callbacks import ReconstructionError
from lebm.checkpoint.writing import AtomicCheckpointIO
from lebm.data import ImageData
from lebm.run.callbacks import Preemption, RunCheckpoint
from tests.estimators.test_resume import Record, same
from tests.reliability.methods import model_of

EPOCH, EPOCHS = 5, 2  # batches in an epoch; validation follows each of them
PLACES = {"inside": EPOCH + 3, "end": EPOCH}  # the batch of the stop; the first is the first of two of a step
KEYS = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch", "epoch_losses")
AVERAGED = ("current_model_state", "averaging_state")


class At(Callback):
    """Acts in one hook, once some batches have begun."""

    def __init__(self, hook: str, batches: int, act: Callable[[], None]) -> None:
        def check(trainer: Trainer, *rest: Any) -> None:
            if trainer.fit_loop.epoch_loop.total_batch_idx + 1 == batches:
                act()

        setattr(self, hook, check)


def fail() -> None:
    raise ZeroDivisionError("a mistake in the program")


HOOKS = {
    "SIGTERM": "on_train_batch_start",
    "SIGINT": "on_train_batch_start",
    "kill": "on_train_batch_start",
    "exception in a step": "on_before_backward",  # the chains have moved, the weights have not
    "exception after a step": "on_train_batch_end",  # before the weights are averaged
    "exception in validation": "on_validation_batch_end",  # of the averaged weights
    "exception after validation": "on_validation_end",  # the weights are back
}
EVERY = {"max_steps": 2, "max_time": 2, "kill": 1}  # steps between checkpoints; otherwise each epoch
BEFORE = ("kill", *(way for way in HOOKS if way.startswith("exception")))
"""Ways that may leave an earlier checkpoint than that of the step in which the run stops."""
WAYS = ["max_steps", "max_time", "limit_train_batches", *HOOKS]
CASES = [
    pytest.param(
        way,
        place,
        accumulate,
        averaged,
        marks=[] if averaged and (accumulate == 2 or way == "exception after a step") else pytest.mark.slow,
    )
    for way in WAYS
    for place in PLACES
    for accumulate in (1, 2)
    for averaged in (False, True)
    if (way, place) != ("limit_train_batches", "inside")  # it decides where an epoch ends
]


def fit(
    folder: Path,
    accumulate: int,
    averaged: bool,
    writer: Callback,
    stop: Callback | None = None,
    **limits: Any,
) -> dict[int, list[float]]:
    """Begin the run of a folder or go on with it; return what its validations measured, by step."""
    record = Record()
    average = EMAWeightAveraging(decay=0.9, update_starting_at_epoch=0)
    settings: dict[str, Any] = {
        "max_epochs": EPOCHS,
        "limit_train_batches": EPOCH,
        "accumulate_grad_batches": accumulate,
        "val_check_interval": 1,
        "num_sanity_val_steps": 0,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }
    trainer = Trainer(
        **{**settings, **limits},
        default_root_dir=folder,
        callbacks=[
            *filter(None, [stop, average if averaged else None]),
            record,
            ReconstructionError(),
            writer,
            Preemption(),
        ],
        plugins=[AtomicCheckpointIO()],
    )
    data = ImageData(
        "embedded:mnist", image_size=8, channels=1, batch_size=12, limit_train=72, limit_eval=24, flip=True
    )
    written = folder / "checkpoints" / "last.ckpt"
    resumed = written if written.exists() else None
    trainer.fit(model_of("latent_mle"), data, ckpt_path=resumed, weights_only=True)
    return record.seen


def steps(batches: int, accumulate: int) -> int:
    """Training steps of some batches; the last batch of an epoch ends a step."""
    epochs, rest = divmod(batches, EPOCH)
    return epochs * -(-EPOCH // accumulate) + -(-rest // accumulate)


def stop(
    way: str, batches: int, accumulate: int, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run until ``way`` ends the run after some batches."""
    if way == "max_steps":
        run(max_steps=steps(batches, accumulate))
    elif way == "limit_train_batches":
        run(max_epochs=batches // EPOCH)
    elif way == "max_time":
        hours: list[int] = []
        monkeypatch.setattr(Timer, "time_elapsed", lambda *stage: 3600.0 * len(hours))
        run(stop=At("on_train_batch_start", batches, lambda: hours.append(1)), max_time={"minutes": 1})
    else:
        if way == "kill":  # an exception of which nothing takes notice; test_kill_fits sends real ones
            monkeypatch.setattr(RunCheckpoint, "on_exception", lambda *error: None)
        act = partial(os.kill, os.getpid(), getattr(signal, way)) if way in dir(signal) else fail
        for _ in range(2 if way == "kill" else 1):
            with pytest.raises((SystemExit, ZeroDivisionError)):
                run(stop=At(HOOKS[way], batches, act))


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in Preemption.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """The last checkpoint and the validations of runs that nothing stops."""
    known: dict[Any, Any] = {}

    def run(*how: Any) -> Any:
        if how not in known:
            folder = tmp_path_factory.mktemp("whole")
            seen = fit(folder, *how, RunCheckpoint(folder))
            known[how] = last(folder), seen
        return known[how]

    return run


def last(folder: Path) -> dict[str, Any]:
    return checkpoint.read(folder / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize(("way", "place", "accumulate", "averaged"), CASES)
def test_a_stopped_run_ends_as_an_undisturbed_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: Callable[..., Any],
    way: str,
    place: str,
    accumulate: int,
    averaged: bool,
) -> None:
    def run(**more: Any) -> dict[int, list[float]]:
        return fit(tmp_path, accumulate, averaged, RunCheckpoint(tmp_path, EVERY.get(way)), **more)

    stop(way, PLACES[place], accumulate, run, monkeypatch)
    stopped = last(tmp_path)["global_step"] if list(tmp_path.rglob("last.ckpt")) else 0
    whole, whole_seen = copy.deepcopy(undisturbed(accumulate, averaged))
    reached = steps(PLACES[place], accumulate)
    assert stopped == reached or (way in BEFORE and stopped < reached)
    seen, ended = run(), last(tmp_path)
    for key in KEYS + AVERAGED * averaged:
        same(ended[key], whole[key], key)
    for loops in (ended["loops"], whole["loops"]) if way == "exception in validation" else ():
        # How many batches of validation have run: the validation that failed is not repeated.
        for name in [name for name in loops["fit_loop"] if name.startswith("epoch_loop.val_loop")]:
            del loops["fit_loop"][name]
    same(ended["loops"], whole["loops"], "loops")
    assert seen
    for step, measured in seen.items():
        assert measured == whole_seen[step], step


@pytest.mark.parametrize("accumulate", [1, 2])
def test_checkpoints_of_lightning(tmp_path: Path, undisturbed: Callable[..., Any], accumulate: int) -> None:
    """They are written when the epoch that ``max_steps`` cut short counts as finished already."""
    for limits in ({"max_steps": steps(PLACES["inside"], accumulate)}, {}):
        fit(
            tmp_path,
            accumulate,
            False,
            ModelCheckpoint(tmp_path / "checkpoints", save_last=True, save_on_train_epoch_end=True),
            **limits,
        )
    ended, (whole, _) = last(tmp_path), undisturbed(accumulate, False)
    for key in KEYS:
        same(ended[key], whole[key], key)
    logged = "epoch_loop.state_dict"  # the step of the loggers
    same(ended["loops"]["fit_loop"][logged], whole["loops"]["fit_loop"][logged], logged)
