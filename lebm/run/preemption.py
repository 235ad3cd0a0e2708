"""Ctrl-C, SIGTERM and SIGUSR1: finish the step, write a checkpoint, and exit with a status that tells the
reason.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lebm.lightning_private import accumulating, inside_epoch


class Preempted(SystemExit):
    """The signal ``number`` has asked the run to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class Preemption(Callback):
    """Ends training at the next step after Ctrl-C, SIGTERM or SIGUSR1; a second Ctrl-C does not wait.

    Lightning's handler of SIGTERM talks to the other processes from inside the signal handler. Here it only
    stores the number, and the processes compare their numbers after every step: a signal to one of them is
    enough, and all stop after the same step."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[signal.Signals, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            # A shell starts a job in the background with SIGINT ignored.
            wanted = [n for n in self.SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in wanted}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        if inside_epoch(trainer):
            self._leave_if_asked(trainer, pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        if self._before and not (trainer.sanity_checking or accumulating(trainer)):
            self._leave_if_asked(trainer, pl_module)

    def _leave_if_asked(self, trainer: Trainer, model: LightningModule) -> None:
        number = self.received
        if trainer.world_size > 1:
            asked = torch.tensor(number, device=model.device)
            torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
            number = int(asked)
        if number:
            raise Preempted(number)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
