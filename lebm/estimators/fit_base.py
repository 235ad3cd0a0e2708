"""The schedule of fits of the base of a prior, and the latents for these fits."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lebm.component import Component
from lebm.errors import UserError, at_least
from lebm.samplers.chains import of_all_processes


class FitBase(nn.Module, Component):
    """A schedule that fits the base of a prior to the latest latents of training data.

    Until the last fit the energy is left out of the prior and does not learn. After each fit the KL of an
    encoder is taken to the fitted base.

    The latents of training are stored, ``4 * rows * latent_dim`` bytes in float32 in every process, and are
    part of the ``state_dict`` until the last fit.

    Args:
        at: times of the fits, ascending; a single number for one fit. An integer is the number of optimiser
            steps before the fit, a number below 1 a share of the steps of the run.
        rows: largest number of latents of a fit, at least 1; the latest ones of at most one epoch, so that
            each training image counts once.
        networks: whether the generator and the encoder continue to learn after the last fit, beside the
            energy.

    Attributes:
        steps: number of optimiser steps so far, until the last fit.
        due: numbers of optimiser steps before each fit; empty until the length of the run is known.
        kept: number of stored latents: ``rows``, or the number of latents of an epoch if it is smaller.

    Raises:
        ValueError: for times that are not positive and ascending, or ``rows`` below 1.

    Example:
        >>> import torch
        >>> from lebm.estimators import FitBase
        >>> rule = FitBase(at=[2, 4], rows=3)
        >>> fits = []
        >>> for step in range(4):
        ...     rule.record(torch.full((2, 1), float(step)))
        ...     fits.append(rule.step())
        >>> [None if z is None else z.flatten().tolist() for z in fits], rule.pending
        ([None, [0.0, 1.0, 1.0], None, [2.0, 3.0, 3.0]], False)
    """

    def __init__(self, at: float | Sequence[float], rows: int = 50_000, networks: bool = True) -> None:
        super().__init__()
        self.at = [at] if isinstance(at, int | float) else list(at)
        in_order = all(a < b for a, b in zip(self.at, self.at[1:], strict=False))
        if not self.at or self.at[0] <= 0 or not in_order or any(a > 1 and a != int(a) for a in self.at):
            raise ValueError(f"at needs ascending steps from 1 on, or shares of the run below 1, not {at}")
        at_least(1, rows=rows)
        self.rows = rows
        self.networks = networks
        self.steps = 0
        self.due = [int(a) for a in self.at] if self.at[0] >= 1 else []
        self.kept = rows
        self._held = 0  # latents in the list
        self._latents: list[Tensor] = []

    def start(self, steps: float) -> str:
        """Convert shares to steps of a run of ``steps`` steps, and return a warning or an empty text.
        A resumed run keeps its own times, also if it becomes longer.
        """
        if self.at[0] < 1 and steps < float("inf"):
            due = [max(1, round(a * steps)) if a < 1 else int(a) for a in self.at]
            if self.steps and due != self.due:
                then = "" if self.networks else ", after which only the energy learns"
                own = f"fit_base: this run began with another length and keeps its fits at steps {self.due}"
                text = f"{own}{then}; train a new run to have them at {due}"
                if self.only_energy and due[-1] > 4 * self.due[-1]:  # after a short trial
                    raise UserError(f"{text}, or set fit_base.at {self.due} to train the energy alone")
                return text
            self.due = due
        elif not self.due:
            raise ValueError(f"fit_base.at {self.at}: give steps, because this run has no end")
        never = f"fit_base.at {self.due[-1]}: this run has {steps:g} steps, so the energy never learns;"
        return f"{never} lower fit_base.at or train longer" if self.due[-1] >= steps > 0 else ""

    @property
    def pending(self) -> bool:
        """True before the last fit, while the energy is left out."""
        return not self.due or self.steps < self.due[-1]

    @property
    def only_energy(self) -> bool:
        """True if the energy alone learns now."""
        return not self.pending and not self.networks

    def record(self, z: Tensor, new_epoch: bool = False) -> None:
        """Add the latents ``(B, latent_dim)`` of a batch. This is a collective call."""
        if not self.pending:
            return
        if new_epoch and self._held:
            self.kept = min(self.kept, self._held)
        self._latents.append(of_all_processes(z.detach())[0])
        self._held += len(self._latents[-1])
        while self._held - len(self._latents[0]) >= self.kept:
            self._held -= len(self._latents.pop(0))

    def step(self) -> Tensor | None:
        """Count an optimiser step and return latents ``(N, latent_dim)`` if a fit is due, else ``None``."""
        if not self.pending:
            return None
        self.steps += 1
        if self.steps not in self.due:
            return None
        latents = self.latents
        if not self.pending:
            self._latents = []
        return latents

    @property
    def latents(self) -> Tensor:
        """Latest latents, ``(N, latent_dim)``, oldest first."""
        if not self._latents:
            return torch.zeros(0)
        newest = self._latents[-1]  # stored latents of a checkpoint may be on another device
        return torch.cat([each.to(newest) for each in self._latents])[-self.kept :]

    # Not a buffer: data-parallel wrappers would send it around at every step, and its size changes.

    def get_extra_state(self) -> dict[str, Any]:
        return {"steps": self.steps, "due": self.due, "kept": self.kept, "latents": self.latents.cpu()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.steps, self.due = int(state["steps"]), state.get("due", self.due)
        self.kept, self._held = state.get("kept", self.kept), len(state["latents"])
        self._latents = [state["latents"].clone()] if self._held else []
