"""Guards of a run, which stop or restore a diverged run and warn before a divergence."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lebm.callbacks.base import Batch, EvaluationCallback, log
from lebm.component import Component
from lebm.errors import UserError, at_least
from lebm.estimators.latent_model import LatentModel, Revises
from lebm.lightning_private import average_of, averages
from lebm.metrics.rows import finite_rows
from lebm.models.layers import check_choice
from lebm.samplers.adaptation import Adaptive
from lebm.samplers.chains import gather_pools
from lebm.samplers.noise import Noise

EARLY = 200
"""Training steps before samples are compared with data, because an untrained generator has no diversity."""
MAX_PIXEL, MIN_SPREAD = 100.0, 1e-4
"""Largest absolute value of a revised image, and least standard deviation per pixel over generated images."""
DRAWS = 64

_ADVICE = "Lower the learning rates or the samplers' step_size, or limit gradients with max_grad_norm"


class DivergenceError(UserError):
    """An error for diverged training, after which no checkpoint is written.

    Example:
        >>> from lebm.callbacks import DivergenceError
        >>> from lebm.errors import UserError
        >>> issubclass(DivergenceError, UserError)  # so the command line prints one line
        True
    """


class Divergence(Callback, Component):
    """A guard that checks loss, gradients, parameters and energy gap, and stops or restores a diverged run.

    Every run has this callback; name it in a recipe to change its arguments. It checks the loss, the
    gradients, and after the step the parameters and ``train/energy_gap``, if the method logs it. On the CPU
    it checks every step, on other devices every ``log_every_n_steps`` steps, because a check waits for the
    device. All processes take the same decision, and non-finite weights never reach a checkpoint. For a model
    that revises its observations by a chain, the ends of the chains, the images of the generator, and the gap
    ``E(x) - E(x~)`` are also checked. :class:`ChainHealth` only warns, at much smaller values.

    With ``policy="recover"`` the run continues from its last healthy state, which is kept in memory, with
    learning rates and step sizes of the samplers multiplied by ``shrink``. Counters, schedules and the
    position in the data are not restored, so lost steps are not repeated. A warning,
    ``divergence/recoveries`` and ``summary.json`` report the recovery. Non-finite data stop the run under
    either policy.

    Args:
        policy: ``"stop"`` ends the run with one line; ``"recover"`` restores the last healthy state.
        max_energy_gap: largest healthy ``|E(z+) - E(z-)|``, mean over a batch, with the default of the
            released code of dual-MCMC teaching; not checked if ``None``.
        keep_every: number of steps between the states that ``"recover"`` keeps.
        shrink: factor on learning rates and step sizes for each recovery, in (0, 1).
        max_recoveries: number of recoveries, after which the next divergence stops the run.

    Raises:
        DivergenceError: in a step, with its number; before a checkpoint is written, with the name of the
            tensor.
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
    ) -> None:
        check_choice("policy", policy, ("stop", "recover"))
        at_least(1, keep_every=keep_every, max_recoveries=max_recoveries)
        if max_energy_gap is not None and not max_energy_gap > 0:
            raise ValueError(f"max_energy_gap must be positive, not {max_energy_gap}")
        if not 0 < shrink < 1:
            raise ValueError(f"shrink must be in (0, 1), not {shrink}")
        self.policy, self.max_energy_gap = policy, max_energy_gap
        self.keep_every, self.shrink, self.max_recoveries = keep_every, shrink, max_recoveries
        self.recoveries: list[dict[str, Any]] = []
        self._kept: list[dict[str, Any]] = []  # the two newest healthy states
        self._batch: Any = None
        self._fault = ""

    @property
    def protocol(self) -> dict[str, Any]:
        """Recoveries, for the summary of the run; empty if there were none."""
        return {"recoveries": self.recoveries} if self.recoveries else {}

    def state_dict(self) -> dict[str, Any]:
        return self.protocol

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.recoveries = list(state_dict.get("recoveries", []))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.policy == "recover":
            self._keep(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._batch = batch

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if not _due(trainer, loss.device):
            return
        cause = self.revision_cause(pl_module.revised) if isinstance(pl_module, Revises) else ""
        if not cause and not loss.isfinite():
            cause = _broken("parameter", pl_module.named_parameters()) or f"the loss is {loss.item()}"
        self._act(trainer, cause, self._data_cause() if cause else "")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        # The gradient scaler of 16-mixed skips non-finite gradients.
        if not self._fault and _due(trainer, pl_module.device) and trainer.precision != "16-mixed":
            parameters = pl_module.named_parameters()
            gradients = ((name, p.grad) for name, p in parameters if p.grad is not None)
            self._act(trainer, _broken("gradient of", gradients))
        if self._fault:
            self._recover(trainer, pl_module)
            optimizer.zero_grad()  # to None, so that the optimiser changes nothing in this step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if not _due(trainer, pl_module.device):
            return
        cause = _broken("parameter", pl_module.named_parameters())
        if _logged(trainer, trainer.global_step):  # the gap exists on logged steps only
            cause = cause or self._gap_cause(trainer.callback_metrics.get("train/energy_gap"))
        if self._act(trainer, cause):
            self._recover(trainer, pl_module)
        elif self.policy == "recover" and trainer.global_step % self.keep_every == 0 and not self._fault:
            self._keep(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        # Parameters only, because the empty slots of pools of chains are not finite.
        own = {name for name, _ in (*pl_module.named_parameters(), *pl_module.named_buffers())}
        state = checkpoint["state_dict"].items()
        if cause := _broken("tensor", ((name, value) for name, value in state if name in own)):
            step = trainer.global_step
            raise DivergenceError(f"{cause} at step {step}; the last healthy checkpoint is kept")

    # Causes

    def revision_cause(self, revised: Mapping[str, Tensor]) -> str:
        """Return the fault of the revised tensors of a step, in words; empty if there is none."""
        for name, value in revised.items():
            if bad := int((~finite_rows(torch.atleast_1d(value))).sum()):
                rows = f" are not finite ({bad} of {len(value)} rows)" if value.dim() else " is not finite"
                return f"the {name}{rows}"
        if cause := self._gap_cause(revised.get("energy gap")):
            return cause
        images, generated = revised.get("revised images"), revised.get("generated images")
        if images is not None and (largest := float(images.abs().max())) > MAX_PIXEL:
            return f"the revised images reach {largest:.4g}, beyond {MAX_PIXEL:g}"
        spread = float(generated.std(dim=0).mean()) if generated is not None and len(generated) > 1 else 1.0
        if spread < MIN_SPREAD:
            return f"the generated images are all alike (spread {spread:.2g}): a dead generator"
        return ""

    def _gap_cause(self, gap: Tensor | None) -> str:
        limit = self.max_energy_gap
        if gap is None or limit is None or abs(float(gap)) <= limit:
            return ""
        return f"the energy gap is {float(gap):.4g}, beyond max_energy_gap {limit:g}"

    def _data_cause(self) -> str:
        """Name the rows of this process's batch with non-finite data; empty if there are none."""
        x = self._batch.get("x") if isinstance(self._batch, dict) else None
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return ""
        numbers = self._batch.get("index", torch.arange(len(x)))
        rows = numbers.cpu()[~finite_rows(x).cpu()].tolist()
        listed = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        return f"the data of row {listed} hold values that are not finite" if rows else ""

    # Reactions

    def _act(self, trainer: Trainer, cause: str, data: str = "") -> bool:
        """Stop at a fault of any process, or note it for a recovery as soon as the step allows it."""
        if not agreed(trainer, bool(cause)):
            return False
        recoverable = not agreed(trainer, bool(data))
        cause = data or cause or "another process has diverged"
        if self.policy == "recover" and recoverable and len(self.recoveries) < self.max_recoveries:
            self._fault = cause
            return True
        advice = _ADVICE if recoverable else "Repair or leave out these rows"
        after = f" after {len(self.recoveries)} recoveries" if self.recoveries else ""
        raise DivergenceError(
            f"{cause} at step {trainer.global_step}{after}; the last healthy checkpoint is kept. {advice}"
        )

    def _keep(self, trainer: Trainer, model: LightningModule) -> None:
        """Store the current state of model, optimiser and averaged weights. This is a collective call."""
        if self._kept and self._kept[-1]["step"] == trainer.global_step:
            return
        gather_pools(model)
        state = {
            "step": trainer.global_step,
            "recoveries": len(self.recoveries),
            "model": deepcopy(model.state_dict()),
            "optimizers": [deepcopy(optimizer.state_dict()) for optimizer in trainer.optimizers],
            "averages": [deepcopy(average_of(c).state_dict()) for c in averages(trainer)],
        }
        self._kept = [*self._kept[-1:], state]

    def _recover(self, trainer: Trainer, model: LightningModule) -> None:
        """Restore the newest state, or the older one if the newest one did not last, and shrink the steps."""
        last = self.recoveries[-1]["back_to"] if self.recoveries else None
        if len(self._kept) > 1 and self._kept[-1]["step"] == last:
            self._kept.pop()
        state = self._kept[-1]
        entry = {"step": trainer.global_step, "cause": self._fault, "back_to": state["step"]}
        self.recoveries, self._fault = [*self.recoveries, entry], ""
        model.load_state_dict(state["model"])
        for optimizer, stored in zip(trainer.optimizers, state["optimizers"], strict=True):
            # Current rates instead of the rates of the state, because the schedule multiplies current rates.
            rates = [group["lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(deepcopy(stored))
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = self.shrink * rate
        for average, stored in zip(averages(trainer), state["averages"], strict=True):
            average_of(average).load_state_dict(stored)
        for part in model.modules():
            if isinstance(part, Adaptive):  # the step sizes in the state already include earlier shrinks
                part.step_scale *= self.shrink ** (len(self.recoveries) - state["recoveries"])
        if trainer.is_global_zero:
            event = f"{entry['cause']} at step {entry['step']}: back to the state of step {state['step']}"
            log.warning("%s, learning rates and step sizes times %g", event, self.shrink)
        model.log("divergence/recoveries", float(len(self.recoveries)))


class ChainHealth(EvaluationCallback):
    """A check that warns of diverging or immobile chains, a runaway energy, and collapsed samples.

    Every run has this callback. Each finding is logged once and listed in ``summary.json`` and the report,
    with its first step.

    On logged training steps it checks ``mcmc/*/nonfinite``, ``mcmc/*/acceptance`` and ``train/energy_gap``,
    ``E(z+) - E(z-)``, which grows before a divergence. In validation, after the first 200 training steps, it
    checks the ratio of the standard deviations of prior samples and of encodings of the first batch, and of
    decoded samples and observations. A ratio near 0 means that the samples have collapsed.

    Args:
        max_energy_gap: largest ``|E(z+) - E(z-)|``, mean over a batch, without a finding.
        min_acceptance: smallest acceptance of a chain with a Metropolis test, in [0, 1), without a finding.
        min_diversity: smallest ratio of the standard deviations, in [0, 1), without a finding.

    Example:
        >>> from lebm.callbacks import ChainHealth
        >>> ChainHealth(max_energy_gap=50).max_energy_gap
        50
    """

    def __init__(
        self, max_energy_gap: float = 100.0, min_acceptance: float = 0.01, min_diversity: float = 0.1
    ) -> None:
        if not max_energy_gap > 0:
            raise ValueError(f"max_energy_gap must be positive, not {max_energy_gap}")
        self.max_energy_gap, self.min_acceptance = max_energy_gap, min_acceptance
        self.min_diversity = min_diversity

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if not _logged(trainer, trainer.global_step):
            return  # values exist on logged steps only, and reading them waits for the device
        for name, value in trainer.callback_metrics.items():
            number, (chain, _, kind) = float(value), name.rpartition("/")
            if chain.startswith("mcmc/") and kind == "nonfinite" and number != 0:
                self._find(trainer, name, number, "chains diverged", "lower step_size or set max_grad_norm")
            elif chain.startswith("mcmc/") and kind == "acceptance" and number < self.min_acceptance:
                self._find(trainer, name, number, "the chains do not move", "lower step_size")
            elif name == "train/energy_gap" and not abs(number) <= self.max_energy_gap:
                remedy = "lower its learning rate, clip its gradient or bound its slope (spectral_norm: true)"
                self._find(trainer, name, number, "the energy runs away", remedy)

    def collect(self, trainer: Trainer, model: LatentModel, stage: str, outputs: Batch, batch: Batch) -> None:
        if not self.first_batch or trainer.global_step < EARLY:
            return
        if not isinstance(outputs, dict) or "z" not in outputs or len(outputs["z"]) < 2:
            return
        draws = model.sample_latent(DRAWS, generator=Noise.shards(0, "health"))
        if (ratio := _ratio(draws, outputs["z"])) < self.min_diversity:
            alike = "samples of the prior are all alike (ratio of standard deviations, samples to data)"
            remedy = "lower the energy's learning rate, or take longer chains"
            self._find(trainer, "diversity/latents", ratio, alike, remedy)
        x = outputs["x"]
        if x.is_floating_point() and (ratio := _ratio(model.decode(draws), x)) < self.min_diversity:
            ignored = "decoded samples are all alike, so the generator may ignore its latents"
            self._find(trainer, "diversity/observations", ratio, ignored, "lower the likelihood's sigma")

    def _find(self, trainer: Trainer, name: str, value: float, reason: str, remedy: str) -> None:
        """Store a finding; only the first one of each name counts."""
        findings = self.protocol.setdefault("findings", {})
        if name in findings:
            return
        findings[name] = {"step": trainer.global_step, "value": value, "reason": reason}
        line = f"step {trainer.global_step}, process {trainer.global_rank}: {name} = {value:.4g}: {reason}"
        log.warning("%s; %s", line, remedy)


def _ratio(drawn: Tensor, data: Tensor) -> float:
    """Return the root mean square of the standard deviations of samples over the one of data."""
    spreads = [x.detach().flatten(1).float().var(dim=0).mean().sqrt() for x in (drawn, data)]
    return float(spreads[0] / spreads[1].clamp(min=1e-12))


def _broken(kind: str, named: Iterable[tuple[str, Tensor]]) -> str:
    """Name the first tensor of a kind that is not finite; empty if all are finite."""
    tensors = {name: x.detach() for name, x in named if x.is_floating_point() and x.numel()}
    if not tensors:
        return ""
    # Extremes, because a sum of squares could overflow, and the largest absolute value is 17 times slower.
    extremes = torch.stack([torch.stack(torch.aminmax(x)) for x in tensors.values()])
    finite = torch.isfinite(extremes).all(1).tolist()  # the only wait for the device
    return "" if all(finite) else f"the {kind} {list(tensors)[finite.index(False)]} is not finite"


def _logged(trainer: Trainer, step: int) -> bool:
    """Return whether a step is logged, so that its values are available."""
    return step % max(1, trainer.log_every_n_steps) == 0  # type: ignore[attr-defined]


def _due(trainer: Trainer, device: torch.device) -> bool:
    """Return whether a check is due, which is rare except on the CPU, because it waits for the device."""
    return device.type == "cpu" or _logged(trainer, trainer.fit_loop.epoch_loop.total_batch_idx + 1)


def agreed(trainer: Trainer, bad: bool) -> bool:
    """Return whether ``bad`` holds on any process."""
    return trainer.strategy.reduce_boolean_decision(bad, all=False) if trainer.world_size > 1 else bad
