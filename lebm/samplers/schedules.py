"""Settings that change along a chain: one number for every step, or a list with one entry per step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Schedule = float | Sequence[float]
"""A constant, or one value per step.

A chain longer than the list continues with the last value. A shorter chain uses the beginning of the list.
"""


def check_schedule(name: str, schedule: Schedule, steps: int, *, positive: bool = False) -> Schedule:
    """Return the schedule as plain floats."""
    scheduled = isinstance(schedule, Sequence)
    entries = [float(value) for value in schedule] if isinstance(schedule, Sequence) else [float(schedule)]
    if not entries or (scheduled and len(entries) > steps):
        raise ValueError(f"{name} has {len(entries)} entries, but a schedule needs 1 to {steps}, the steps")
    if any(not (value > 0 if positive else value >= 0) for value in entries):
        raise ValueError(f"{name} must {'be positive' if positive else 'not be negative'}, not {schedule}")
    return entries if scheduled else entries[0]


def values(schedule: Schedule, steps: int) -> list[float]:
    """Return the value at each of ``steps`` steps."""
    if not isinstance(schedule, Sequence):
        return [schedule] * steps
    return [schedule[min(step, len(schedule) - 1)] for step in range(steps)]


def on_device(numbers: Sequence[float], like: Tensor) -> Tensor:
    """Copy plain numbers ``(n,)`` to the dtype and device of ``like``, without waiting for the device.

    ``torch.tensor(numbers, device=...)`` would wait for the copy, and so for all work before it.
    """
    return torch.tensor(numbers, dtype=like.dtype).to(like.device, non_blocking=True)
