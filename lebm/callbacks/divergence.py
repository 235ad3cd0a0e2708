"""A diverged run stops or goes back to a healthy state."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lebm.callbacks.base import log
from lebm.component import Component
from lebm.errors import UserError
from lebm.estimators.latent_model import Revises
from lebm.lightning_private import average_of, averages
from lebm.metrics.rows import finite_rows
from lebm.samplers.adaptation import Adaptive
from lebm.samplers.chains import gather_pools

__all__ = ["Divergence", "DivergenceError", "Rollback", "agreed"]


class Rollback:
    """Keeps the two newest healthy states of model, optimiser and averaged weights, and restores one of them.

    A restored state does not change counters, schedules and the position in the data. So the lost steps are
    not repeated.

    Args:
        shrink: factor on learning rates and on the step sizes of the samplers for each return, in (0, 1).

    Example:
        >>> from lebm.callbacks.divergence import Rollback
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


_ADVICE = "Lower the learning rates or the samplers' step_size, or limit gradients with max_grad_norm"


class DivergenceError(UserError):
    """Training has diverged; no checkpoint is written after this error.

    Example:
        >>> from lebm.callbacks import DivergenceError
        >>> from lebm.errors import UserError
        >>> issubclass(DivergenceError, UserError)  # so the command line prints one line
        True
    """


class Divergence(Callback, Component):
    """Checks loss, gradients, parameters and the energy gap in training, and stops a diverged run or goes
    back.

    It checks the loss before the gradients are computed, the gradients before the optimiser uses them, and
    the parameters after the step. It checks ``train/energy_gap`` if the method logs it. On the CPU it checks
    every step. On other devices a check waits for the device, so there it checks every ``log_every_n_steps``
    steps. A chain that explodes shows in the loss of the same step. Every process takes the same decision.
    Non-finite weights never reach a checkpoint.

    With ``policy="recover"`` the run goes on from its last healthy state, which is kept in memory. The
    optimiser does not take the bad step. Learning rates and the step sizes of the samplers are multiplied by
    ``shrink`` for the rest of the run. The recovery is counted in ``divergence/recoveries``, in a warning and
    in the run's ``summary.json``. Non-finite data stop the run under either policy, because no step size
    repairs them. Every run has this callback; name it in a recipe to change its arguments.

    A model that revises its observations by a chain is also checked before the gradients: the ends of its
    chains, the images of its generator, and the gap ``E(x) - E(x~)``. :class:`~lebm.callbacks.ChainHealth`
    only warns, at much smaller values.

    Args:
        policy: ``stop`` ends the run with one line; ``recover`` goes back and on.
        max_energy_gap: largest healthy ``|E(z+) - E(z-)|``, mean over a batch; no check of the gap if
            ``None``. The released code of dual-MCMC teaching stops at the default.
        keep_every: steps between the states that ``recover`` keeps.
        shrink: factor on learning rates and step sizes after each divergence, in (0, 1), with ``recover``.
        max_recoveries: number of recoveries; ``recover`` stops the run at the next divergence.
        max_pixel: largest absolute value of a revised image; the data are in [-1, 1].
        min_spread: least standard deviation per pixel over the generated images of a batch that are revised.
            Below it, the generator makes one image only.

    Raises:
        DivergenceError: from a step, with its number; from a checkpoint that is about to be written, with the
            name of the tensor.
        ValueError: for an argument out of range.

    Example:
        >>> from lebm.callbacks import Divergence
        >>> Divergence(policy="recover").max_recoveries
        10
    """

    def __init__(
        self,
        policy: Literal["stop", "recover"] = "stop",
        max_energy_gap: float | None = 1e4,
        keep_every: int = 50,
        shrink: float = 0.5,
        max_recoveries: int = 10,
        max_pixel: float = 100.0,
        min_spread: float = 1e-4,
    ) -> None:
        if policy not in ("stop", "recover"):
            raise ValueError(f"policy must be 'stop' or 'recover', not {policy!r}")
        if max_energy_gap is not None and not max_energy_gap > 0:
            raise ValueError(f"max_energy_gap must be positive, not {max_energy_gap}")
        if keep_every < 1 or max_recoveries < 1:
            raise ValueError(
                f"keep_every and max_recoveries must be at least 1, not {keep_every} and {max_recoveries}"
            )
        if not 0 < shrink < 1:
            raise ValueError(f"shrink must be in (0, 1), not {shrink}")
        if not max_pixel > 0 or min_spread < 0:
            raise ValueError(
                f"max_pixel must be positive and min_spread not negative, not {max_pixel} and {min_spread}"
            )
        self.policy = policy
        self.max_energy_gap = max_energy_gap
        self.keep_every = keep_every
        self.max_recoveries = max_recoveries
        self.max_pixel = max_pixel
        self.min_spread = min_spread
        self.recoveries: list[dict[str, Any]] = []
        self._rollback = Rollback(shrink)
        self._batch: Any = None
        self._fault = ""

    @property
    def protocol(self) -> dict[str, Any]:
        """The recoveries, for the summary of the run; empty if there were none."""
        return {"recoveries": self.recoveries} if self.recoveries else {}

    def state_dict(self) -> dict[str, Any]:
        return self.protocol

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.recoveries = list(state_dict.get("recoveries", []))

    # Checks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.policy == "recover":
            self._rollback.keep(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch = batch

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if not _due(trainer, loss.device):
            return
        revision = self.revision_cause(pl_module.revised) if isinstance(pl_module, Revises) else ""
        if agreed(trainer, bool(revision) or not all_finite([loss.reshape(1)])):
            cause, data = self._loss_cause(pl_module, loss)
            data = agreed(trainer, data)
            self._act(trainer, cause if data else revision or cause, recoverable=not data)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        # The gradient scaler of 16-mixed skips non-finite gradients by itself.
        if not self._fault and _due(trainer, pl_module.device) and trainer.precision != "16-mixed":
            gradients = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
            if agreed(trainer, not all_finite(list(gradients.values()))):
                self._act(trainer, f"the gradient of {_first_bad(gradients)} is not finite")
        if self._fault:
            self._recover(trainer, pl_module)
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None  # then the optimiser changes nothing in this step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not _due(trainer, pl_module.device):
            return
        cause = self._state_cause(trainer, pl_module)
        if agreed(trainer, bool(cause)):
            self._act(trainer, cause or "another process has diverged")
            self._recover(trainer, pl_module)
        elif self.policy == "recover" and trainer.global_step % self.keep_every == 0 and not self._fault:
            self._rollback.keep(trainer, pl_module)

    def _loss_cause(self, model: LightningModule, loss: Tensor) -> tuple[str, bool]:
        """Why a loss is not finite, in words, and whether the data are the cause."""
        rows = self._bad_rows()
        if rows:
            listed = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
            return f"the data of row {listed} hold values that are not finite", True
        return _parameter_cause(model) or f"the loss is {loss.detach().item()}", False

    def revision_cause(self, revised: Mapping[str, Tensor]) -> str:
        """What is wrong with the revised tensors of a step, in words; empty if nothing is."""
        for name, value in revised.items():
            bad = int((~finite_rows(value.reshape(1) if not value.dim() else value)).sum())
            if bad and not value.dim():
                return f"the {name} is not finite"
            if bad:
                return f"the {name} are not finite ({bad} of {len(value)} rows)"
        gap, limit = revised.get("energy gap"), self.max_energy_gap
        if gap is not None and limit is not None and abs(float(gap)) > limit:
            return f"the energy gap is {float(gap):.4g}, beyond max_energy_gap {limit:g}"
        images = revised.get("revised images")
        if images is not None and (largest := float(images.abs().max())) > self.max_pixel:
            return f"the revised images reach {largest:.4g}, beyond max_pixel {self.max_pixel:g}"
        generated = revised.get("generated images")
        if generated is not None and len(generated) > 1:
            spread = float(generated.std(dim=0).mean())
            if spread < self.min_spread:
                return f"the generated images are all alike (spread {spread:.2g}): a dead generator"
        return ""

    def _bad_rows(self) -> list[int]:
        """Numbers of the rows with non-finite data in this process's batch."""
        x = self._batch.get("x") if isinstance(self._batch, dict) else None
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return []
        rows = self._batch.get("index", torch.arange(len(x)))
        return rows.cpu()[~finite_rows(x).cpu()].tolist()

    def _state_cause(self, trainer: Trainer, model: LightningModule) -> str:
        if cause := _parameter_cause(model):
            return cause
        gap, limit = trainer.callback_metrics.get("train/energy_gap"), self.max_energy_gap
        # The gap exists on logged steps only.
        logged = trainer.global_step % max(1, trainer.log_every_n_steps) == 0  # type: ignore[attr-defined]
        if gap is not None and limit is not None and logged and not abs(float(gap)) <= limit:
            return f"the energy gap is {float(gap):.4g}, beyond max_energy_gap {limit:g}"
        return ""

    # Reactions

    def _act(self, trainer: Trainer, cause: str, recoverable: bool = True) -> None:
        """Stop, or note the fault; the recovery follows as soon as the step allows it."""
        if self.policy == "recover" and recoverable and len(self.recoveries) < self.max_recoveries:
            self._fault = cause
            return
        advice = _ADVICE if recoverable else "Repair or leave out these rows"
        after = f" after {len(self.recoveries)} recoveries" if self.recoveries else ""
        raise DivergenceError(
            f"{cause} at step {trainer.global_step}{after}; the last healthy checkpoint is kept. {advice}"
        )

    def _recover(self, trainer: Trainer, model: LightningModule) -> None:
        step = self._rollback.back(trainer, model)
        entry = {"step": trainer.global_step, "cause": self._fault, "back_to": step}
        self.recoveries = [*self.recoveries, entry]
        self._fault = ""
        if trainer.is_global_zero:
            event = f"{entry['cause']} at step {entry['step']}: back to the state of step {step}"
            log.warning("%s, learning rates and step sizes times %g", event, self._rollback.shrink)
        model.log("divergence/recoveries", float(len(self.recoveries)))

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # Only these: the pools of chains are in the state too, and their empty slots are not finite.
        own = {name for name, _ in (*pl_module.named_parameters(), *pl_module.named_buffers())}
        for name, value in checkpoint["state_dict"].items():
            if name in own and not all_finite([value]):
                raise DivergenceError(
                    f"{name} is not finite at step {trainer.global_step}; the last healthy checkpoint is kept"
                )


def _due(trainer: Trainer, device: torch.device) -> bool:
    every = 1 if device.type == "cpu" else max(1, trainer.log_every_n_steps)  # type: ignore[attr-defined]
    return (trainer.fit_loop.epoch_loop.total_batch_idx + 1) % every == 0


def agreed(trainer: Trainer, bad: bool) -> bool:
    """Whether ``bad`` holds on any process."""
    return trainer.strategy.reduce_boolean_decision(bad, all=False) if trainer.world_size > 1 else bad


def _parameter_cause(model: LightningModule) -> str:
    """Which parameter is not finite, in words; empty if all are finite."""
    parameters = dict(model.named_parameters())
    if all_finite(list(parameters.values())):
        return ""
    return f"the parameter {_first_bad(parameters)} is not finite"


def _first_bad(tensors: Mapping[str, Tensor]) -> str:
    return next((name for name, value in tensors.items() if not all_finite([value])), "another process")
