"""Warnings of chains and priors that have collapsed or are about to diverge."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lebm.callbacks.base import Batch, EvaluationCallback, Outputs, log
from lebm.callbacks.divergence import DivergenceError
from lebm.estimators.latent_model import LatentModel
from lebm.samplers.noise import Noise

__all__ = ["ChainHealth"]

EARLY = 200
"""Training steps before draws are compared with data: an untrained generator draws one image only."""


class ChainHealth(EvaluationCallback):
    """Looks for chains that diverge or do not move, an energy that runs away, and draws that are all alike.

    Every run has this callback. Each finding gives one line in the log and stays in the run's
    ``summary.json`` and report, with the step in which it was first seen.

    On logged training steps it looks at ``mcmc/*/nonfinite``, at ``mcmc/*/acceptance`` and at
    ``train/energy_gap``, ``E(z+) - E(z-)``, which grows before a divergence. In validation it compares draws
    of the prior with the data: the standard deviation of the latents that the prior draws, over that of the
    encodings of the first batch, and the same for decoded draws and observations. A ratio near 0 means that
    the samples have collapsed. Nothing is compared in the first 200 training steps.

    Args:
        max_energy_gap: largest ``|E(z+) - E(z-)|``, mean over a batch, without a finding.
        min_acceptance: least acceptance of a chain that corrects its moves, in [0, 1), without a finding.
        min_diversity: least ratio of the standard deviations, in [0, 1), without a finding.
        n: number of draws of the prior for the comparison, at least 2.
        policy: ``warn``, or ``stop`` to end the run at the first finding.

    Raises:
        DivergenceError: for a finding, with ``policy="stop"``.
        ValueError: for an argument out of range.

    Example:
        >>> from lebm.callbacks import ChainHealth
        >>> ChainHealth(max_energy_gap=50).max_energy_gap
        50
    """

    def __init__(
        self,
        max_energy_gap: float = 100.0,
        min_acceptance: float = 0.01,
        min_diversity: float = 0.1,
        n: int = 64,
        policy: Literal["warn", "stop"] = "warn",
    ) -> None:
        super().__init__()
        if not max_energy_gap > 0:
            raise ValueError(f"max_energy_gap must be positive, not {max_energy_gap}")
        if not 0 <= min_acceptance < 1 or not 0 <= min_diversity < 1:
            raise ValueError(
                f"min_acceptance and min_diversity must be in [0, 1), not {min_acceptance} and"
                f" {min_diversity}"
            )
        if n < 2 or policy not in ("warn", "stop"):
            raise ValueError(f"n must be at least 2 and policy warn or stop, not {n} and {policy!r}")
        self.max_energy_gap = max_energy_gap
        self.min_acceptance = min_acceptance
        self.min_diversity = min_diversity
        self.n = n
        self.policy = policy
        self._compared = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % max(1, trainer.log_every_n_steps):  # type: ignore[attr-defined]
            return  # the values exist on logged steps only, and reading them waits for the device
        for name, value in trainer.callback_metrics.items():
            number, (chain, _, kind) = float(value), name.rpartition("/")
            if chain.startswith("mcmc/") and kind == "nonfinite" and number != 0:
                self._find(trainer, name, number, "chains diverged", "lower step_size or set max_grad_norm")
            elif chain.startswith("mcmc/") and kind == "acceptance" and number < self.min_acceptance:
                self._find(trainer, name, number, "the chains do not move", "lower step_size")
            elif name == "train/energy_gap" and not abs(number) <= self.max_energy_gap:
                remedy = "lower its learning rate, clip its gradient or bound its slope (spectral_norm: true)"
                self._find(trainer, name, number, "the energy runs away", remedy)

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        self._compared = trainer.global_step < EARLY

    def collect(
        self, trainer: Trainer, model: LatentModel, stage: str, outputs: Outputs, batch: Batch
    ) -> None:
        if self._compared or not isinstance(outputs, dict) or "z" not in outputs or len(outputs["z"]) < 2:
            return
        self._compared = True
        draws = model.sample_latent(self.n, generator=Noise.shards(0, "health"))
        alike = "draws of the prior are all alike (ratio of standard deviations, draws to data)"
        remedy = "lower the energy's learning rate, or take longer chains"
        self._compare(trainer, "latents", draws, outputs["z"], alike, remedy)
        if outputs["x"].is_floating_point():
            ignored = "decoded draws are all alike, so the generator may ignore its latents"
            remedy = "lower the likelihood's sigma"
            self._compare(trainer, "observations", model.decode(draws), outputs["x"], ignored, remedy)

    def _compare(
        self, trainer: Trainer, name: str, drawn: Tensor, data: Tensor, reason: str, remedy: str
    ) -> None:
        ratio = float(_spread(drawn) / _spread(data).clamp(min=1e-12))
        if ratio < self.min_diversity:
            self._find(trainer, f"diversity/{name}", ratio, reason, remedy)

    def _find(self, trainer: Trainer, name: str, value: float, reason: str, remedy: str) -> None:
        """Note a finding; only the first one of each name counts."""
        findings = self.protocol.setdefault("findings", {})
        if name in findings:
            return
        findings[name] = {"step": trainer.global_step, "value": value, "reason": reason}
        line = f"step {trainer.global_step}, process {trainer.global_rank}: {name} = {value:.4g}: {reason}"
        if self.policy == "stop":
            raise DivergenceError(f"{line}; {remedy}")
        log.warning("%s; %s", line, remedy)


def _spread(x: Tensor) -> Tensor:
    """The root mean square over coordinates of their standard deviation over rows."""
    return x.detach().flatten(1).float().var(dim=0).mean().sqrt() if len(x) > 1 else torch.zeros(())
