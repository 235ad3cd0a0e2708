"""SIGTERM and SIGUSR1: finish the step, write a checkpoint, leave with a status that says why."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["Preempted", "Preemption"]


class Preempted(SystemExit):
    """The run was asked to stop, and every process has agreed to do so after the same step.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class Preemption(Callback):
    """Ends training at the next step after SIGTERM or SIGUSR1, by which schedulers announce that they will
    take the machine away.

    Lightning's own handler of SIGTERM talks to the other processes from inside the signal handler, where they
    may be in the middle of something else, and stops each of them where it happens to be. Here the handler
    only takes a note; the processes compare notes after every step, so that it does not matter which of them
    were told, and all leave after the same one."""

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[signal.Signals, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._leave_if_told(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._before and not trainer.sanity_checking:
            self._leave_if_told(trainer, pl_module)

    def _leave_if_told(self, trainer: Trainer, model: LightningModule) -> None:
        number = self.received
        if trainer.world_size > 1:
            told = torch.tensor(number, device=model.device)
            torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
            number = int(told)
        if number:
            raise Preempted(number)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
