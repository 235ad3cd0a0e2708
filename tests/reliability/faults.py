"""Faults that happen inside a run, injected by its data module."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lebm.data import ImageData
from lebm.samplers import PersistentChains
from lebm.samplers.adaptation import Adaptive

__all__ = ["FAULTS", "FaultyData"]

Trainer = Any
NAN, INFINITY = float("nan"), float("inf")


def _pixel(value: float) -> Callable[[Trainer, dict[str, Tensor]], None]:
    def spoil(trainer: Trainer, batch: dict[str, Tensor]) -> None:
        batch["x"][1, 0, 2, 2] = value

    return spoil


def _weight(network: int, value: float) -> Callable[[Trainer, dict[str, Tensor]], None]:
    def spoil(trainer: Trainer, batch: dict[str, Tensor]) -> None:
        networks = list(trainer.lightning_module.networks().values())
        next(networks[network].parameters()).data.view(-1)[0] = value

    return spoil


def _gradient(trainer: Trainer, batch: dict[str, Tensor]) -> None:
    next(trainer.lightning_module.parameters()).register_hook(lambda gradient: gradient * NAN)


def _moment(trainer: Trainer, batch: dict[str, Tensor]) -> None:
    for state in trainer.optimizers[0].state.values():
        state["exp_avg"].fill_(NAN)


def _chain(name: str) -> Callable[[Trainer, dict[str, Tensor]], None]:
    def explode(trainer: Trainer, batch: dict[str, Tensor]) -> None:
        """The step of one chain, or of any where the method has none of that name."""
        samplers = {
            n: part for n, part in trainer.lightning_module.named_modules() if isinstance(part, Adaptive)
        }
        chosen = [part for n, part in samplers.items() if n.startswith(name)] or list(samplers.values())
        for part in chosen:
            part.step_scale = 1e15
            if hasattr(part, "clamp"):
                part.clamp = None

    return explode


def _rate(trainer: Trainer, batch: dict[str, Tensor]) -> None:
    for group in trainer.optimizers[0].param_groups:
        group["lr"] = 1e38


def _pools(trainer: Trainer, batch: dict[str, Tensor]) -> None:
    for part in trainer.lightning_module.modules():
        if isinstance(part, PersistentChains) and part._own is not None:
            part._own.fill_(NAN)


def _signal(number: int) -> Callable[[Trainer, dict[str, Tensor]], None]:
    return lambda trainer, batch: os.kill(os.getpid(), number)


def _disk(number: int) -> Callable[[Trainer, dict[str, Tensor]], None]:
    """From now on the disk refuses what is flushed to it."""

    def fill(trainer: Trainer, batch: dict[str, Tensor]) -> None:
        def refuse(descriptor: int) -> None:
            raise OSError(number, os.strerror(number))

        os.fsync = refuse  # the test puts it back

    return fill


def _vanish(trainer: Trainer, batch: dict[str, Tensor]) -> None:
    shutil.rmtree(Path(trainer.default_root_dir) / "checkpoints")


def _raise(error: BaseException) -> Callable[[Trainer, dict[str, Tensor]], None]:
    def fail(trainer: Trainer, batch: dict[str, Tensor]) -> None:
        raise error

    return fail


FAULTS: dict[str, Callable[[Trainer, dict[str, Tensor]], None]] = {
    "NaN pixel": _pixel(NAN),
    "infinite pixel": _pixel(INFINITY),
    "NaN weight, first network": _weight(0, NAN),
    "infinite weight, first network": _weight(0, INFINITY),
    "NaN weight, last network": _weight(-1, NAN),
    "NaN gradient": _gradient,
    "NaN moment of Adam": _moment,
    "exploding posterior chain": _chain("posterior_sampler"),
    "exploding model chain": _chain("prior_sampler"),
    "learning rate of 1e38": _rate,
    "NaN in a chain pool": _pools,
    "SIGTERM": _signal(signal.SIGTERM),
    "SIGUSR1": _signal(signal.SIGUSR1),
    "Ctrl-C": _signal(signal.SIGINT),
    "second Ctrl-C": _raise(KeyboardInterrupt()),
    "full disk": _disk(errno.ENOSPC),
    "read-only file system": _disk(errno.EROFS),
    "disk error": _disk(errno.EIO),
    "checkpoint folder deleted": _vanish,
    "out of GPU memory": _raise(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")),
    "dead data worker": _raise(RuntimeError("DataLoader worker (pid 4711) is killed by signal: Killed.")),
    "error in the program": _raise(ZeroDivisionError("a mistake in the program")),
}


class FaultyData(ImageData):
    """Images of 8 by 8, and one fault.

    Args:
        fault: its name; none if ``None``.
        at: how many training batches, or validation batches, pass before it.
        in_validation: whether it happens in validation.
        batch_size: images a step.
    """

    def __init__(
        self, fault: str | None = None, at: int = 5, in_validation: bool = False, batch_size: int = 20
    ) -> None:
        super().__init__(
            "embedded:mnist",
            image_size=8,
            channels=1,
            batch_size=batch_size,
            limit_train=4 * batch_size,
            limit_eval=40,
        )
        self.fault = fault
        self.left = at
        self.in_validation = in_validation

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        trainer = self.trainer
        assert trainer is not None
        if (
            self.fault is not None
            and not trainer.sanity_checking
            and (trainer.validating if self.in_validation else trainer.training)
        ):
            if self.left == 0:
                with torch.no_grad():
                    FAULTS[self.fault](trainer, batch)
            self.left -= 1
        return batch
