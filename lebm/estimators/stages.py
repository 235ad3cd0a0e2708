"""Rules that end a stage of a multi-stage prior, and the resets and log lines that follow."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lebm.component import Component
from lebm.density_ratio.classifiers import extrapolation
from lebm.lightning_private import average_of, averages
from lebm.models.ratios import RatioPrior
from lebm.samplers.chains import sum_over_processes

# Loss of a classifier that does not separate the classes, in nats per pair of a positive and a negative.
ONE = 2 * math.log(2)
IMPROVEMENT, AGREES, SEPARATES = 2e-3, 5e-3, 0.02
"""Smallest decrease of the loss that counts, largest distance from ``ONE`` that counts as zero, and loss
below which the classes count as separated, in nats.
"""
_STORED = ("steps", "loss", "accuracy", "best", "stale", "ended")


@dataclass(frozen=True)
class StageRecord:
    """A record of a finished stage.

    Attributes:
        stage: number of the stage, from 1.
        steps: number of its optimiser steps.
        loss: last measured loss, in nats per pair; ``2 log 2`` for the ratio one, and 0 for classes without
            overlap.
        accuracy: last measured accuracy, in [0, 1].
        reason: reason for its end.
        kept: whether its ratio became part of the prior.
    """

    stage: int
    steps: int
    loss: float
    accuracy: float
    reason: str
    kept: bool


class StageRule(nn.Module, Component, ABC):
    """Base class of the rules that count the steps of a stage, collect its loss and end it.

    Args:
        window: number of steps over which the loss is averaged.
        held_out: every ``held_out``-th observation, by index, is measured and never trains the classifier.
            With 0 all observations train it, and are measured just before the step that uses them.
    """

    def __init__(self, window: int, held_out: int) -> None:
        super().__init__()
        if held_out < 0 or held_out == 1:
            raise ValueError(f"held_out must be 0 (none) or at least 2 (every so many), not {held_out}")
        self.window = window
        self.held_out = held_out
        self.history: list[StageRecord] = []
        self.ended = False
        self._begin()

    def _begin(self) -> None:
        self.steps = 0
        self.loss, self.accuracy = ONE, 0.5
        self.best = math.inf
        self.stale = 0
        self._sums: Tensor | None = None

    def record(self, positive: Tensor, negative: Tensor, measured: Tensor) -> None:
        """Add a batch. This is a collective call, and it never waits for the device.

        Args:
            positive: energies ``-log r`` of the positives, ``(B,)``.
            negative: energies of the negatives, ``(B,)``.
            measured: mask of the rows to measure, ``(B,)`` of ``bool``.
        """
        with torch.no_grad():
            weight = measured.double()
            losses = nn.functional.softplus(positive.double()) + nn.functional.softplus(-negative.double())
            right = 0.5 * ((positive < 0).double() + (negative >= 0).double())
            sums = torch.stack([(weight * losses).sum(), (weight * right).sum(), weight.sum()])
            sums = sum_over_processes(sums)
            self._sums = sums if self._sums is None else self._sums.to(sums.device) + sums

    def step(self, slots_left: int) -> StageRecord | None:
        """Count an optimiser step, and return the record of the stage if this was its last step.

        Args:
            slots_left: number of stages that can still be kept, including this one.
        """
        if self.ended:
            return None
        self.steps += 1
        reason = self._reason(self.steps % self.window == 0 and self._measure())
        if reason is None:
            return None
        self._measure()  # the steps of an unfinished window
        kept = self._worth_keeping()
        record = StageRecord(len(self.history) + 1, self.steps, self.loss, self.accuracy, reason, kept)
        self.history.append(record)
        self.ended = not kept or slots_left <= 1
        self._begin()
        return record

    def _measure(self) -> bool:
        """Move the window's sums to the host; return ``False`` if they are empty."""
        if self._sums is None:
            return False
        loss, right, count = self._sums.tolist()
        self._sums = None
        if count == 0:
            return False
        self.loss, self.accuracy = loss / count, right / count
        return True

    @abstractmethod
    def _reason(self, measured: bool) -> str | None:
        """Return the reason if the stage ends with this step, else ``None``."""

    def _worth_keeping(self) -> bool:
        """Return whether the stage has learned anything; otherwise it is discarded and the method ends."""
        return True

    def get_extra_state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _STORED} | {
            "sums": None if self._sums is None else self._sums.tolist(),
            "history": [asdict(record) for record in self.history],
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        vars(self).update((name, state[name]) for name in _STORED)
        self._sums = None if state["sums"] is None else torch.tensor(state["sums"], dtype=torch.float64)
        self.history = [StageRecord(**entry) for entry in state["history"]]


class FixedStages(StageRule):
    """A rule with stages of fixed length.

    Args:
        steps: optimiser steps of every stage; or one number per stage, where the last number holds for all
            further stages.
        window: number of steps over which the reported loss is averaged.
        held_out: every ``held_out``-th observation is measured and never trains the classifier; 0 for none.

    Raises:
        ValueError: for a length below 1, or an empty list.

    Example:
        >>> from lebm.estimators import FixedStages
        >>> rule = FixedStages([1, 2])
        >>> [rule.step(slots_left=2) is not None for _ in range(4)]
        [True, False, True, False]
    """

    def __init__(self, steps: int | Sequence[int], window: int = 50, held_out: int = 0) -> None:
        super().__init__(window, held_out)
        self.lengths = [steps] if isinstance(steps, int) else list(steps)
        if not self.lengths or min(self.lengths) < 1:
            raise ValueError(f"stages need at least 1 step each, not {steps}")

    def _reason(self, measured: bool) -> str | None:
        length = self.lengths[min(len(self.history), len(self.lengths) - 1)]
        return "its steps are done" if self.steps >= length else None


class AdaptiveStages(StageRule):
    """A rule that ends a stage when the smoothed held-out loss of its classifier stops improving.

    The loss is checked after every window from step ``min_steps`` on. If it is within 0.005 of ``2 log 2``,
    prior and aggregate posterior agree, so the stage is discarded and was the last one. If it is below 0.02,
    more training would make the ratio over-confident, because the classes hardly overlap, so the next stage
    begins. The next stage also begins if the loss has not improved by 0.002 nats in ``patience`` windows.

    Args:
        min_steps: least number of steps of a stage.
        max_steps: largest number of steps of a stage.
        window: number of steps over which the loss is averaged.
        patience: number of windows without improvement after which the stage ends.
        held_out: every ``held_out``-th observation is measured and never trains the classifier; at least 2.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> from lebm.estimators import AdaptiveStages
        >>> AdaptiveStages(min_steps=100, window=20).held_out
        10
    """

    def __init__(
        self,
        min_steps: int = 200,
        max_steps: int = 5000,
        window: int = 50,
        patience: int = 4,
        held_out: int = 10,
    ) -> None:
        super().__init__(window, held_out)
        if not 1 <= min_steps <= max_steps or held_out < 2:
            raise ValueError(
                f"needs 1 <= min_steps <= max_steps and held_out >= 2, not {min_steps}, {max_steps} and"
                f" {held_out}"
            )
        self.min_steps = min_steps
        self.max_steps = max_steps
        self.patience = patience

    def _reason(self, measured: bool) -> str | None:
        if measured:
            better = self.loss < self.best - IMPROVEMENT
            self.stale = 0 if better else self.stale + 1
            self.best = min(self.best, self.loss)
        due = measured and self.steps >= self.min_steps
        if due and self.loss < SEPARATES:
            return "the classes are separated"
        stale = due and self.stale >= self.patience
        if not stale and self.steps < self.max_steps:
            return None
        if not self._worth_keeping():
            return "one: nothing is left to learn"
        return "its loss has levelled off" if stale else "its steps are done"

    def _worth_keeping(self) -> bool:
        return self.best <= ONE - AGREES


log = logging.getLogger("lebm.estimators")
_RISE = 0.02
"""Largest gain in accuracy of a stage over the one before, above the noise of an accuracy."""


def renew_averages(trainer: Trainer, model: nn.Module, parts: Sequence[str]) -> None:
    """Restart every average of weights (EMA) for some parts of a model, by name."""
    for callback in averages(trainer):
        for part in parts:
            average = getattr(average_of(callback).module, part)
            average.load_state_dict(getattr(model, part).state_dict())


def stage_lines(stages: StageRule, prior: RatioPrior) -> Iterator[str]:
    """Return the lines that report the end of the last stage, and the constant of the prior if estimated."""
    record = stages.history[-1]
    held_out = "held-out " if stages.held_out else ""
    measured = f"{held_out}loss {record.loss:.3f} (1.386 for the ratio one), accuracy {record.accuracy:.3f}"
    yield f"stage {record.stage} ended after {record.steps} steps, {record.reason}: {measured}"
    if record.kept and prior.tilt.finished in prior.constants:
        constant = prior.log_constant()
        yield (
            f"  log Z = {constant.estimate:.2f} [{constant.low:.2f}, {constant.high:.2f}],"
            f" {constant.ess:.0f} effective chains"
        )


def warn(history: Sequence[StageRecord], prior: RatioPrior) -> None:
    """Warn of a last stage that was kept although its ratio is not reliable.

    Either its classifier makes no mistakes, so its ratio is an extrapolation; or it separates better than the
    stage before, so its negatives are not samples of the product of the earlier stages.
    """
    *earlier, record = history
    doubt = extrapolation(prior.tilt, record.accuracy)
    if not doubt and earlier and record.accuracy > earlier[-1].accuracy + _RISE:
        doubt = (
            f"stage {record.stage} separates prior and posterior better than stage {earlier[-1].stage}"
            f" ({record.accuracy:.3f} after {earlier[-1].accuracy:.3f}): the chains of prior_sampler do not"
            " follow the product; take a smaller step_size, more steps, or MALA instead of Langevin"
        )
    if doubt and record.kept:
        log.warning(doubt)
