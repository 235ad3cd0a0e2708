"""The last healthy states of a run, kept in memory."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lebm.lightning_private import average_of, averages
from lebm.samplers.adaptation import Adaptive
from lebm.samplers.chains import gather_pools

__all__ = ["Rollback"]


class Rollback:
    """Keeps the two newest healthy states of model, optimiser and averaged weights, and restores one of them.

    A restored state does not change counters, schedules and the position in the data. So the lost steps are
    not repeated.

    Args:
        shrink: factor on learning rates and on the step sizes of the samplers for each return, in (0, 1).

    Example:
        >>> from lebm.callbacks.rollback import Rollback
        >>> Rollback(shrink=0.5).shrink
        0.5
    """

    def __init__(self, shrink: float) -> None:
        self.shrink = shrink
        self._times = 0
        self._kept: list[dict[str, Any]] = []
        self._stepped_back = False

    def keep(self, trainer: Trainer, model: LightningModule) -> None:
        """Keep the current state. Every process must call this."""
        if self._kept and self._kept[-1]["step"] == trainer.global_step:
            return
        gather_pools(model)
        state = {
            "step": trainer.global_step,
            "times": self._times,
            "model": deepcopy(model.state_dict()),
            "optimizers": [deepcopy(optimizer.state_dict()) for optimizer in trainer.optimizers],
            "averages": [deepcopy(average_of(c).state_dict()) for c in averages(trainer)],
        }
        self._kept = [*self._kept[-1:], state]
        self._stepped_back = False

    def back(self, trainer: Trainer, model: LightningModule) -> int:
        """Restore the newest state, and shrink learning rates and step sizes.

        If the run has gone back to that state before and no healthy state has followed, the older state is
        restored.

        Returns:
            The step of the restored state.
        """
        if self._stepped_back and len(self._kept) > 1:
            self._kept.pop()
        self._stepped_back = True
        self._times += 1
        state = self._kept[-1]
        # The step sizes in the state have the shrinks before it already.
        factor = self.shrink ** (self._times - state["times"])
        model.load_state_dict(state["model"])
        for optimizer, stored in zip(trainer.optimizers, state["optimizers"], strict=True):
            # These and not those of the state: the schedule has moved on, and multiplies the current rates.
            rates = [group["lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(deepcopy(stored))
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = self.shrink * rate
        for average, stored in zip(averages(trainer), state["averages"], strict=True):
            average_of(average).load_state_dict(stored)
        for part in model.modules():
            if isinstance(part, Adaptive):
                part.step_scale *= factor
        return int(state["step"])


def all_finite(tensors: list[Tensor]) -> bool:
    """Whether all numbers of all tensors are finite, with one wait for the device."""
    floating = [tensor.detach() for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    if not floating:
        return True
    # The maximum, because a sum of squares would overflow for large finite numbers.
    return bool(torch.isfinite(torch.stack(torch._foreach_norm(floating, float("inf")))).all())
