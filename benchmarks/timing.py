"""Interleaved timing: all variants once a round in random order, ratios taken inside a round, medians over
rounds.
"""

from __future__ import annotations

import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

__all__ = ["Timings", "gemm_rate", "interleave", "machine"]


@dataclass
class Timings:
    """Seconds of every variant in every round."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, variant: str, reference: str) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of ``reference / variant``: above 1 the variant is
        faster.
        """
        pairs = [b / a for a, b in zip(self.seconds[variant], self.seconds[reference], strict=True)]
        return quartiles(pairs)

    def median(self, variant: str) -> float:
        return statistics.median(self.seconds[variant])


def quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def interleave(
    variants: Mapping[str, Callable[[], object]], rounds: int, seed: int = 0, warm_up: int = 1
) -> Timings:
    """Run every variant once a round, in a new random order each round, after ``warm_up`` rounds that do not
    count.
    """
    order, shuffle, timings = list(variants), random.Random(seed), Timings({name: [] for name in variants})
    for round_number in range(-warm_up, rounds):
        shuffle.shuffle(order)
        for name in order:
            start = time.perf_counter()
            variants[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if round_number >= 0:
                timings.seconds[name].append(time.perf_counter() - start)
    return timings


def gemm_rate(device: str = "cpu", size: int = 1536) -> Callable[[], object]:
    """A matrix product of ``2 size^3`` floating-point operations, to be timed in the same rounds as the
    variants.
    """
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    return lambda: a @ b


def machine() -> str:
    """One line about where the figures were taken."""
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            processor = next(
                (line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor
            )
    except OSError:
        pass
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{processor}, {torch.get_num_threads()} threads{gpu}, torch {torch.__version__}, Python"
        f" {platform.python_version()}"
    )
