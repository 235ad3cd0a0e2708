"""The last healthy states of a run, kept in memory."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn

from lebm.samplers.adaptation import Adaptive
from lebm.samplers.chains import gather_pools

__all__ = ["Rollback"]


class Rollback:
    """Keeps the two newest healthy states of model, optimiser and averaged weights, and goes back to one of
    them.

    Going back leaves counters, schedules and the position in the data alone: the steps that are lost are not
    repeated.

    Args:
        shrink: factor, in (0, 1), on learning rates and on the samplers' step sizes each time.
    """

    def __init__(self, shrink: float) -> None:
        self.shrink = shrink
        self._times = 0
        self._kept: list[dict[str, Any]] = []
        self._stepped_back = False

    def keep(self, trainer: Trainer, model: LightningModule) -> None:
        """Remember the state as it is. A collective call."""
        if self._kept and self._kept[-1]["step"] == trainer.global_step:
            return
        gather_pools(model)
        state = {
            "step": trainer.global_step,
            "times": self._times,
            "model": _copied(model.state_dict()),
            "optimizers": [_copied(optimizer.state_dict()) for optimizer in trainer.optimizers],
            "averages": [_copied(average.state_dict()) for average in _averages(trainer)],
        }
        self._kept = [*self._kept[-1:], state]
        self._stepped_back = False

    def back(self, trainer: Trainer, model: LightningModule) -> int:
        """Restore a state and shrink; the older one if the newer did not last until the next was kept.

        Returns:
            The step of that state.
        """
        if self._stepped_back and len(self._kept) > 1:
            self._kept.pop()
        self._stepped_back = True
        self._times += 1
        state = self._kept[-1]
        factor = self.shrink ** (
            self._times - state["times"]
        )  # the state's step sizes have those before it already
        model.load_state_dict(state["model"])
        for optimizer, stored in zip(trainer.optimizers, state["optimizers"], strict=True):
            # not those of the state: a schedule has moved on since, and multiplies what it finds
            rates = [group["lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(_copied(stored))
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = self.shrink * rate
        for average, stored in zip(_averages(trainer), state["averages"], strict=True):
            average.load_state_dict(stored)
        for part in model.modules():
            if isinstance(part, Adaptive):
                part.step_scale *= factor
        return int(state["step"])


def _averages(trainer: Trainer) -> list[nn.Module]:
    """The averaged models (EMA) of the run's callbacks."""
    callbacks = [callback for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]  # type: ignore[attr-defined]
    return [callback._average_model for callback in callbacks if callback._average_model is not None]


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value


def all_finite(tensors: list[Tensor]) -> bool:
    """Whether all numbers of all tensors are finite, with one wait for the device."""
    floating = [tensor.detach() for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    if not floating:
        return True
    # a maximum and not a sum of squares, which would overflow for numbers that are large and finite
    return bool(torch.isfinite(torch.stack(torch._foreach_norm(floating, float("inf")))).all())
