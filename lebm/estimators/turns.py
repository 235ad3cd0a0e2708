"""Whose turn it is to learn: all networks in one optimiser step, or in two steps per batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from lebm.errors import UserError

__all__ = ["Schedule", "Turns", "touch"]

Schedule = Literal["simultaneous", "alternate"]


class Turns:
    """The optimiser steps of one batch.

    Args:
        schedule: ``"simultaneous"``, one step for all networks; or ``"alternate"``, a step for generator and
            inference model, then one for the energy.

    Attributes:
        energy: whether the energy learns in the present step.
        teachers: whether generator and inference model learn in the present step.
        earlier: loss of the earlier steps of this batch, detached. It is added to the last one, so that the
            logged loss is that of the batch.

    Raises:
        ValueError: for another schedule.
    """

    def __init__(self, schedule: Schedule) -> None:
        if schedule not in ("simultaneous", "alternate"):
            raise ValueError(f"schedule must be simultaneous or alternate, not {schedule!r}")
        self.alternate = schedule == "alternate"
        self.energy = self.teachers = True
        self.earlier: Tensor | float = 0.0

    def check(self, accumulated: int) -> None:
        """Refuse gradient accumulation where a batch takes two steps.

        Raises:
            UserError: naming both ways out.
        """
        if self.alternate and accumulated > 1:
            raise UserError(
                "schedule alternate takes two steps a batch and cannot accumulate: use a larger batch, or"
                " simultaneous"
            )

    def of_batch(self) -> Iterator[None]:
        """Go through the turns of a batch; all networks learn outside the loop."""
        for teachers, energy in ((True, False), (False, True)) if self.alternate else ((True, True),):
            self.teachers, self.energy = teachers, energy
            yield
        self.teachers = self.energy = True
        self.earlier = 0.0

    def rest(self, networks: Mapping[str, nn.Module]) -> None:
        """Remove the gradients of networks whose turn it is not.

        A zero gradient would still move them, by Adam's moments and weight decay.
        """
        for name, network in networks.items():
            if not (self.energy if name == "energy" else self.teachers):
                network.zero_grad(set_to_none=True)


def touch(*networks: nn.Module) -> Tensor:
    """Zero, with a zero gradient for every parameter: data-parallel wrappers wait for all of them."""
    return sum(
        (0.0 * parameter.sum() for network in networks for parameter in network.parameters()),
        start=torch.zeros(()),
    )
