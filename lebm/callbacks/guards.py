"""Guards against training that has gone wrong."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lebm.errors import UserError

__all__ = ["NonFiniteError", "StopOnNonFinite"]


class NonFiniteError(UserError):
    """The loss or a weight became NaN or infinite; nothing of the run after that is worth saving."""


class StopOnNonFinite(Callback):
    """Ends the run at a loss that is not finite, and never lets weights that are not finite reach a checkpoint.

    The loss is looked at before its gradients are computed: at every step on the CPU, and every ``log_every_n_steps`` steps on
    other devices, where looking waits for the device. Every process takes the same decision.

    Raises:
        NonFiniteError: from the step, naming it; from a checkpoint about to be written, naming the tensor.
    """

    def __init__(self) -> None:
        self._batch: Any = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch = batch

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        every = 1 if loss.device.type == "cpu" else max(1, trainer.log_every_n_steps)  # type: ignore[attr-defined]
        if (trainer.fit_loop.epoch_loop.total_batch_idx + 1) % every:
            return
        bad = not bool(torch.isfinite(loss.detach()).all())
        if trainer.world_size > 1:
            bad = trainer.strategy.reduce_boolean_decision(bad, all=False)
        if bad:
            raise NonFiniteError(
                f"{self._cause(loss)} at step {trainer.global_step}; the last healthy checkpoint is kept. {self._advice()}"
            )

    def _bad_rows(self) -> list[int]:
        """Numbers of the rows of this process's batch whose data are not finite."""
        x = self._batch.get("x") if isinstance(self._batch, dict) else None
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return []
        bad = ~torch.isfinite(x).flatten(1).all(dim=1)
        rows = self._batch.get("index", torch.arange(len(x)))
        return rows.cpu()[bad.cpu()].tolist()

    def _cause(self, loss: Tensor) -> str:
        rows = self._bad_rows()
        listed = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        return f"the data of row {listed} hold values that are not finite" if rows else f"the loss is {loss.detach().item()}"

    def _advice(self) -> str:
        if self._bad_rows():
            return "Repair or leave out these rows"
        return "Lower the learning rates or the samplers' step_size, or limit gradients with max_grad_norm"

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        for name, value in checkpoint["state_dict"].items():
            if isinstance(value, Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise NonFiniteError(f"{name} is not finite at step {trainer.global_step}; the last healthy checkpoint is kept")
