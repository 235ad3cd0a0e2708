"""A run resumed from any checkpoint sees the rows, and ends with the weights, of the run that was never
stopped.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lebm.data.images import ImageData
from lebm.data.loader import ShardedBatchSampler
from lebm.errors import UserNotice
from tests.conftest import MakeParquet

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:Total length of `list`"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
]
Seen = list[tuple[int, int, list[int]]]


class Learner(LightningModule):
    """Its weights depend on the order of the data, on flips, and on nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(64, 3)
        torch.nn.init.constant_(self.net.weight, 0.01)
        torch.nn.init.zeros_(self.net.bias)
        self.seen: Seen = []
        self.validated: list[int] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.seen.append((self.current_epoch, batch_idx, batch["index"].tolist()))
        return nn.functional.cross_entropy(self.net(batch["x"].flatten(1)), batch["label"] % 3)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.validated += batch["index"].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.05)


def quiet_trainer(folder: Path, **settings: Any) -> Trainer:
    """On one CPU, without checkpoints, logs and checks before training, unless ``settings`` say otherwise."""
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    quiet |= {"accelerator": "cpu", "devices": 1, "default_root_dir": folder, "num_sanity_val_steps": 0}
    return Trainer(**(quiet | settings))


def run(
    data: dict[str, Any],
    folder: Path,
    resume: str | None = None,
    callbacks: list[Callback] | None = None,
    **trainer: Any,
) -> Learner:
    learner = Learner()
    settings = {"max_epochs": 3, "enable_checkpointing": bool(callbacks), **trainer}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(not resumable|unreliable|shuffl|DistributedSampler).*")
        fitting = quiet_trainer(folder, callbacks=callbacks, **settings)
        fitting.fit(learner, datamodule=ImageData(**data), ckpt_path=resume)
    return learner


def every_step(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, "{epoch}-{step}", save_top_k=-1, every_n_train_steps=1)


def by_step(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.ckpt"), key=lambda file: int(file.stem.split("step=")[1]))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    import logging

    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


def ready(data: dict[str, Any]) -> ImageData:
    module = ImageData(**data)
    module.setup()
    return module


def compare(
    data: dict[str, Any], folder: Path, picked: slice = slice(None), expected: int = 32, **trainer: Any
) -> None:
    """Train once saving after each step, then resume from the checkpoints."""
    whole = run(data, folder, callbacks=[every_step(folder)], **trainer)
    sampler = ShardedBatchSampler(
        len(ready(data).train), data["batch_size"], shuffle=True, drop_last=True, seed=data["seed"]
    )
    for epoch, batch, seen in whole.seen:
        sampler.set_epoch(epoch)
        assert seen == next(sampler.batches(batch))
        assert len(seen) == data["batch_size"]
    files = by_step(folder)[:-1][picked]  # after the last step there is nothing left to do
    assert len(files) >= expected
    for file in files:
        progress = torch.load(file, weights_only=True)["loops"]["fit_loop"]["epoch_loop.batch_progress"][
            "total"
        ]["ready"]
        resumed = run(data, folder, str(file), **trainer)
        assert resumed.seen == whole.seen[progress:], file.name
        for name, weight in whole.state_dict().items():
            assert torch.equal(weight, resumed.state_dict()[name]), (file.name, name)


@pytest.fixture
def data(make_parquet: MakeParquet) -> dict[str, Any]:
    """11 whole batches an epoch, and one row over."""
    return {"path": str(make_parquet(train=89, test=8)), "batch_size": 8, "seed": 5}


def test_every_step_of_three_epochs(data: dict[str, Any], tmp_path: Path) -> None:
    compare(data, tmp_path)


def exhaustive_or_every(steps: int) -> pytest.MarkDecorator:
    """From every checkpoint, or from so few that all places in an epoch occur in three epochs or six."""
    return pytest.mark.parametrize("every", [steps, pytest.param(1, marks=pytest.mark.slow)])


@exhaustive_or_every(3)
def test_with_a_limit_of_steps(data: dict[str, Any], tmp_path: Path, every: int) -> None:
    compare(data, tmp_path, slice(None, None, every), 32 // every, max_epochs=-1, max_steps=33)


@exhaustive_or_every(5)
def test_gradient_accumulation_validation_within_epochs_and_flips(
    data: dict[str, Any], tmp_path: Path, every: int
) -> None:
    data |= {"validation_size": 8, "batch_size": 7, "flip": True}  # 11 batches, 6 optimiser steps an epoch
    trainer = {"accumulate_grad_batches": 2, "val_check_interval": 4, "max_epochs": 6}
    compare(data, tmp_path, slice(None, None, every), 32 // every, **trainer)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_that_read_ahead(data: dict[str, Any], tmp_path: Path, num_workers: int) -> None:
    alone = run(data, tmp_path)
    data["num_workers"] = num_workers
    assert run(data, tmp_path).seen == alone.seen
    compare(data, tmp_path / "checkpoints", picked=slice(8, 13), expected=5, max_epochs=2)


def test_fewer_batches_than_there_are(data: dict[str, Any], tmp_path: Path) -> None:
    compare(data, tmp_path, limit_train_batches=4, max_epochs=4, expected=15)


@pytest.mark.parametrize("trainer", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 33}])
@pytest.mark.parametrize("at_validation", [False, True])
def test_checkpoints_of_epoch_ends(
    data: dict[str, Any], tmp_path: Path, at_validation: bool, trainer: dict[str, int]
) -> None:
    data["validation_size"] = 1
    saver = ModelCheckpoint(
        tmp_path, "{epoch}-{step}", save_top_k=-1, every_n_epochs=1, save_on_train_epoch_end=not at_validation
    )
    whole = run(data, tmp_path, callbacks=[saver], **trainer)
    files = by_step(tmp_path)
    assert len(files) == 3
    for number, file in enumerate(files[:2], start=1):
        resumed = run(data, tmp_path, str(file), **trainer)
        assert resumed.seen == whole.seen[11 * number :]
        assert torch.equal(whole.net.weight, resumed.net.weight)


class Stop(Callback):
    """Fails within a training step, before anything has been learnt from it."""

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 15:
            raise InterruptedError


def test_a_checkpoint_written_on_an_exception_repeats_the_unfinished_step(
    data: dict[str, Any], tmp_path: Path
) -> None:
    whole = run(data, tmp_path)
    saver = ModelCheckpoint(tmp_path, save_on_exception=True)
    with pytest.raises(InterruptedError):
        run(data, tmp_path, callbacks=[Stop(), saver])
    (file,) = (file for file in tmp_path.glob("*.ckpt") if "exception" in file.name or "step=15" in file.name)
    resumed = run(data, tmp_path, str(file))
    assert resumed.seen == whole.seen[15:]
    assert torch.equal(whole.net.weight, resumed.net.weight)


def test_resuming_with_other_data_warns(data: dict[str, Any], tmp_path: Path) -> None:
    run(data, tmp_path, callbacks=[every_step(tmp_path)], max_steps=2)
    data["batch_size"] = 4
    with pytest.warns(UserNotice, match="batch_size 8 -> 4, limit_train_batches 1.0 -> 2"):
        run(data, tmp_path, str(by_step(tmp_path)[0]), max_steps=3, limit_train_batches=2)


def test_overfit_batches_repeats_its_batches(data: dict[str, Any], tmp_path: Path) -> None:
    seen = run(data, tmp_path, overfit_batches=2).seen
    epochs = [[rows for number, _, rows in seen if number == epoch] for epoch in range(3)]
    assert len(epochs[0]) == 2
    assert epochs[0] == epochs[1] == epochs[2]


def test_a_batch_size_that_is_changed_is_the_one_that_is_stored(data: dict[str, Any], tmp_path: Path) -> None:
    """As Lightning's tuner changes it, after the splits were made."""
    module = ready(data)
    module.batch_size = 16
    learner, trainer = Learner(), quiet_trainer(tmp_path, max_steps=1)
    trainer.fit(learner, datamodule=module)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    assert len(learner.seen[0][2]) == 16
    assert module.describe_split()["batch_size"] == 16  # for the summary
    assert torch.load(tmp_path / "end.ckpt", weights_only=True)["ImageData"]["batch_size"] == 16
    assert str(module).startswith("ImageData(path=")
