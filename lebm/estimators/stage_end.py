"""The end of a stage beside the prior: Adam's moments, averaged weights, and the lines that report it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lebm.density_ratio.classifiers import SEPARATED
from lebm.estimators.stages import StageRecord, StageRule
from lebm.lightning_private import average_of, averages
from lebm.models.ratios import RatioPrior

__all__ = ["clear_moments", "renew_averages", "stage_lines", "warn"]

log = logging.getLogger("lebm.estimators")
_RISE = 0.02
"""By how much a stage may separate better than the one before: more than the noise of an accuracy."""


def clear_moments(optimizer: torch.optim.Optimizer, network: nn.Module) -> None:
    """Set Adam's moments and step counts of a network's parameters to zero, in place."""
    for parameter in network.parameters():
        for moment in optimizer.state.get(parameter, {}).values():
            if isinstance(moment, Tensor):
                moment.zero_()


def renew_averages(trainer: Trainer, model: nn.Module, parts: Sequence[str]) -> None:
    """Copy parts of a model, by name, into every average of its weights (EMA): those averages start again."""
    for callback in averages(trainer):
        for part in parts:
            average = getattr(average_of(callback).module, part)
            average.load_state_dict(getattr(model, part).state_dict())


def stage_lines(record: StageRecord, stages: StageRule, prior: RatioPrior, annealed: bool) -> Iterator[str]:
    """The lines that say how a stage ended, and the constant of the prior if it was estimated."""
    held_out = "held-out " if stages.held_out else ""
    measured = f"{held_out}loss {record.loss:.3f} (1.386 for the ratio one), accuracy {record.accuracy:.3f}"
    yield f"stage {record.stage} ended after {record.steps} steps, {record.reason}: {measured}"
    if record.kept and annealed:
        constant = prior.log_constant()
        yield (
            f"  log Z = {constant.log_z:.2f} [{constant.low:.2f}, {constant.high:.2f}],"
            f" {constant.ess:.0f} effective chains"
        )


def warn(history: Sequence[StageRecord], prior: RatioPrior) -> None:
    """Warn of a last stage that was kept and that no later stage should be built on without a look.

    Its classifier makes no mistakes, so its ratio is an extrapolation; or it separates better than the one
    before, so its negatives are no draws of the prior so far.
    """
    *earlier, record = history
    if record.kept and record.accuracy > SEPARATED:
        last = "no stage is left to correct that: raise max_stages"
        cure = last if prior.tilt.complete else "later stages have to correct that"
        log.warning(
            f"stage {record.stage} tells prior and posterior apart perfectly, so its ratio is an"
            f" extrapolation; {cure}"
        )
    elif record.kept and earlier and record.accuracy > earlier[-1].accuracy + _RISE:
        log.warning(
            f"stage {record.stage} tells prior and posterior apart better than stage {earlier[-1].stage}"
            f" ({record.accuracy:.3f} after {earlier[-1].accuracy:.3f}): the chains of prior_sampler do not"
            " follow the product; take a smaller step_size, more steps, or MALA instead of Langevin"
        )
