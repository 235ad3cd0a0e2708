"""Every private part of Lightning that lebm uses is there and does what lebm expects of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

from lebm import lightning_private as private
from tests.callbacks.tiny import TinyData, latent_mle, trainer

LEBM = Path(private.__file__).parent


class Watch(Callback):
    """Asks one question after every batch, and keeps the answers."""

    def __init__(self, question: Callable[[Trainer], Any]) -> None:
        self.question = question
        self.answers: list[Any] = []

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.answers.append(self.question(trainer))


def answers(folder: Path, question: Callable[[Trainer], Any], **options: Any) -> list[Any]:
    watch = Watch(question)
    trainer(folder, [watch], **options).fit(latent_mle(), datamodule=TinyData())
    return watch.answers


def test_a_step_ends_with_its_last_batch(tmp_path: Path) -> None:
    two = answers(tmp_path, private.accumulating, accumulate_grad_batches=2, max_epochs=1)
    assert two == [True, False] * (len(two) // 2)
    assert not any(answers(tmp_path, private.accumulating, max_epochs=1))


def test_the_last_batch_is_not_inside_its_epoch(tmp_path: Path) -> None:
    inside = answers(tmp_path, private.inside_epoch, max_epochs=1)
    assert inside == [True] * (len(inside) - 1) + [False]


def test_a_wish_to_stop_waits_for_the_least_number_of_steps(tmp_path: Path) -> None:
    def wish(trainer: Trainer) -> bool:
        trainer.should_stop = trainer.global_step >= 2
        return private.stops_early(trainer)

    assert answers(tmp_path, wish, max_epochs=1, min_epochs=0, min_steps=3) == [False, False, True]


def test_the_average_is_found_and_exchanged(tmp_path: Path) -> None:
    ema, model = EMAWeightAveraging(decay=0.5), latent_mle()
    assert private.averages(trainer(tmp_path, [ema])) == []  # it has not begun
    run = trainer(tmp_path, [ema], max_epochs=1, limit_val_batches=0)
    run.fit(model, datamodule=TinyData())
    assert private.averages(run) == [ema]
    name, weight = next(iter(model.named_parameters()))
    average = dict(private.average_of(ema).module.named_parameters())[name]
    before, averaged = weight.detach().clone(), average.detach().clone()
    average.data += 1
    private.swap_average(ema, model)
    assert torch.equal(weight, averaged + 1)
    assert torch.equal(average, before)


def test_a_checkpoint_is_put_together_without_the_other_processes(tmp_path: Path) -> None:
    run = trainer(tmp_path, [], max_epochs=1)
    run.fit(latent_mle(), datamodule=TinyData())
    content = private.checkpoint_content(run)
    assert {"state_dict", "optimizer_states", "loops", "callbacks", "hyper_parameters"} <= set(content)
    assert content["global_step"] == run.global_step


def test_the_last_checkpoint_is_written_once(tmp_path: Path) -> None:
    keeper = ModelCheckpoint(dirpath=tmp_path / "kept", save_last=True, save_top_k=0, every_n_epochs=9)
    run = trainer(tmp_path, [keeper], max_epochs=1, enable_checkpointing=True)
    run.fit(latent_mle(), datamodule=TinyData())
    file = tmp_path / "kept" / "last.ckpt"
    file.unlink(missing_ok=True)
    keeper._last_global_step_saved = 0
    private.save_last(keeper, run)
    written = file.stat().st_mtime_ns
    private.save_last(keeper, run)  # this step has one
    assert file.stat().st_mtime_ns == written


def test_a_strategy_says_whether_layers_are_synchronised() -> None:
    cpu: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    assert not private.syncs_layers(Trainer(**cpu).strategy)
    assert private.syncs_layers(Trainer(**cpu, strategy="ddp", sync_batchnorm=True).strategy)


def test_an_epoch_that_a_stop_has_cut_short_is_not_finished(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            if trainer.global_step == 2:
                raise KeyboardInterrupt

    run = trainer(tmp_path, [Stop()], max_epochs=2)
    with pytest.raises(SystemExit):
        run.fit(latent_mle(), datamodule=TinyData())
    loops = private.checkpoint_content(run)["loops"]["fit_loop"]
    loops["epoch_progress"]["current"].update(processed=1, completed=1)  # as after Lightning's own handling
    private.reopen_epoch(loops)
    assert loops["epoch_progress"]["current"]["processed"] == 0
    batch = loops["epoch_loop.batch_progress"]["current"]
    assert batch["completed"] == batch["processed"] - 1


def test_the_epoch_of_a_resumed_run_is_counted(tmp_path: Path) -> None:
    class AtTheLastStep(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            if trainer.current_epoch == 0 and trainer.global_step == 4:
                trainer.save_checkpoint(tmp_path / "last-step.ckpt")

    trainer(tmp_path, [AtTheLastStep()], max_epochs=1).fit(latent_mle(), datamodule=TinyData())
    run = trainer(tmp_path, [], max_epochs=3)
    run.fit(latent_mle(), datamodule=TinyData(), ckpt_path=tmp_path / "last-step.ckpt", weights_only=True)
    assert run.fit_loop.epoch_progress.current.ready == run.fit_loop.epoch_progress.current.completed == 3
    assert run.global_step == 12


def test_no_other_file_uses_a_private_part() -> None:
    names = "_average_model|_swap_models|_layer_sync|_checkpoint_connector|_should_accumulate|_can_stop_early"
    names += "|_num_ready_batches_reached|_batches_that_stepped|_save_last_checkpoint|_monitor_candidates"
    found = [
        path.name for path in LEBM.rglob("*.py") if re.search(rf"\.({names})\b", path.read_text("utf-8"))
    ]
    assert found == ["lightning_private.py"]
