"""Warnings about chains that diverge and energies that run away."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lebm.callbacks.base import log
from lebm.component import Component

__all__ = ["ChainHealth"]


class ChainHealth(Callback, Component):
    """Warns once for each logged ``mcmc/*/nonfinite`` and once for ``train/energy_gap``; it changes nothing.

    The energies of positive and negative latents should stay close. A growing gap comes before divergence.
    This callback does not stop the run. :class:`~lebm.callbacks.Divergence` does, at a far larger gap.

    Args:
        max_energy_gap: largest ``|E(z+) - E(z-)|``, mean over a batch, without a warning.

    Raises:
        ValueError: if ``max_energy_gap`` is not positive.

    Example:
        >>> from lebm.callbacks import ChainHealth
        >>> ChainHealth(max_energy_gap=50).max_energy_gap
        50
    """

    def __init__(self, max_energy_gap: float = 100.0) -> None:
        if not max_energy_gap > 0:
            raise ValueError(f"max_energy_gap must be positive, not {max_energy_gap}")
        self.max_energy_gap = max_energy_gap
        self._warned: set[str] = set()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % max(1, trainer.log_every_n_steps):  # type: ignore[attr-defined]
            return  # the values exist on logged steps only, and reading them waits for the device
        for name, value in trainer.callback_metrics.items():
            if name in self._warned:
                continue
            where = f"step {trainer.global_step}, process {trainer.global_rank}: {name} = {float(value):.4g}"
            if name.startswith("mcmc/") and name.endswith("/nonfinite") and float(value) != 0:
                log.warning("%s: chains diverged; lower the sampler's step size or set max_grad_norm", where)
                self._warned.add(name)
            elif name == "train/energy_gap" and not abs(float(value)) <= self.max_energy_gap:
                log.warning(
                    "%s: the energy runs away; lower its learning rate, clip its gradient or bound its slope"
                    " (spectral_norm: true)",
                    where,
                )
                self._warned.add(name)
