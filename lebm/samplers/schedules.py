"""Settings that change along a chain: a number for every step, or a list with one entry a step."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Schedule", "check_schedule", "geometric", "linear", "values"]

Schedule = float | Sequence[float]
"""A constant, or one value a step. A chain longer than the list stays at its last value; a shorter one uses
its beginning.
"""


def check_schedule(name: str, schedule: Schedule, steps: int, *, positive: bool) -> Schedule:
    """The schedule as plain floats.

    Raises:
        ValueError: if it is empty, longer than ``steps``, negative, or zero where ``positive`` is asked for.
    """
    scheduled = isinstance(schedule, Sequence)
    entries = [float(value) for value in schedule] if isinstance(schedule, Sequence) else [float(schedule)]
    if not entries or (scheduled and len(entries) > steps):
        raise ValueError(
            f"{name} has {len(entries)} entries, but a schedule needs 1 to steps={steps} of them"
        )
    if any(not (value > 0 if positive else value >= 0) for value in entries):
        raise ValueError(f"{name} must {'be positive' if positive else 'not be negative'}, not {schedule}")
    return entries if scheduled else entries[0]


def values(schedule: Schedule, steps: int) -> list[float]:
    """The value at each of ``steps`` steps."""
    if not isinstance(schedule, Sequence):
        return [schedule] * steps
    return [schedule[min(step, len(schedule) - 1)] for step in range(steps)]


def linear(first: float, last: float, steps: int) -> list[float]:
    """``steps`` evenly spaced values from ``first`` to ``last``."""
    return [first + (last - first) * step / max(1, steps - 1) for step in range(steps)]


def geometric(first: float, last: float, steps: int) -> list[float]:
    """``steps`` values from ``first`` to ``last`` with a constant ratio; both positive."""
    return [first * (last / first) ** (step / max(1, steps - 1)) for step in range(steps)]
