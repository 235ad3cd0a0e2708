"""What an evaluation leaves behind: figures with everything needed to repeat them, in one versioned JSON
file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lebm.errors import UserError
from lebm.evaluation.intervals import Interval

__all__ = ["FORMAT", "Figure", "SuiteResult", "beside", "merged", "read_evaluation", "without_curves"]

FORMAT = 2
_HEAD = ("run", "checkpoint", "checkpoint_sha256", "weights", "method", "seed", "suites")
_ORIGIN = ("command", "started", "versions", "hardware", "data", "chains")


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: for example ``auroc/anomaly_score``.
        value: the number; ``None`` if it is not finite.
        low: lower end of its interval, or ``None`` where it has none.
        high: upper end.
        level: coverage of the interval.
        interval: how the interval was found.
        n: number of samples behind the figure.
        split: which samples.
        details: what belongs beside the figure, such as a base rate.

    Example:
        >>> from lebm.evaluation.record import Figure
        >>> Figure.plain("acceptance/prior", 0.9, 32, "chains").value
        0.9
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    level: float | None
    interval: str
    n: int
    split: str
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, interval: Interval, n: int, split: str, **details: Any) -> Figure:
        """A figure from its interval."""
        ends = (interval.value, interval.low, interval.high)
        value, low, high = (end if math.isfinite(end) else None for end in ends)
        return cls(name, value, low, high, interval.level, interval.method, n, split, details)

    @classmethod
    def plain(cls, name: str, value: float, n: int, split: str, **details: Any) -> Figure:
        """A figure without an interval."""
        return cls(name, value if math.isfinite(value) else None, None, None, None, "", n, split, details)


def beside(figure: Mapping[str, Any]) -> str:
    """What an area under a precision-recall curve must be read against: its value by guessing, and the lowest
    there is.
    """
    details = figure["details"]
    if not figure["name"].startswith("auprc/") or "base_rate" not in details:
        return ""
    lowest = f", lowest {details['auprc_lowest']:.3g}" if "auprc_lowest" in details else ""
    return f"guessing {details['base_rate']:.3g}{lowest}"


@dataclass
class SuiteResult:
    """What one suite measured.

    Attributes:
        protocol: how, as plain values; ``name`` is its short name.
        figures: the numbers.
        curves: histograms, ROC and precision-recall curves, traces, as lists of numbers, for a report.
        skipped: why nothing was measured; empty otherwise.
        wall_time_seconds: of the suite.
        origin: ``command``, ``started``, ``versions``, ``hardware``, ``data`` and ``chains`` (the samplers'
            settings) of this suite, which need not be those of another suite in the same file.

    Example:
        >>> from lebm.evaluation.record import SuiteResult
        >>> SuiteResult({"name": "anomaly"}, skipped="the run has no held_out_label").figures
        []
    """

    protocol: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    curves: dict[str, Any] = field(default_factory=dict)
    skipped: str = ""
    wall_time_seconds: float = 0.0
    origin: dict[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As it is written."""
        return asdict(self)


def merged(old: Mapping[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """``new`` with the suites of ``old`` that were not measured again, if both are of the same weights and
    seed.
    """
    same = old is not None and all(old[key] == new[key] for key in ("checkpoint_sha256", "seed", "weights"))
    return {**new, "suites": {**(old["suites"] if old is not None and same else {}), **new["suites"]}}


def read_evaluation(path: Path) -> dict[str, Any]:
    """The content of an ``evaluation.json``; one of format 1 as format 2.

    Raises:
        UserError: if it is unreadable, of a newer format, or lacks what the format asks for.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({str(error)[:80]})") from error
    if not isinstance(content, dict) or not isinstance(content.get("lebm_evaluation"), int):
        raise UserError(f"{path}: not written by lebm evaluate")
    if content["lebm_evaluation"] > FORMAT:
        raise UserError(
            f"{path}: written by a newer lebm (format {content['lebm_evaluation']}, this one reads up to"
            f" {FORMAT})"
        )
    if content["lebm_evaluation"] < FORMAT:
        raise UserError(
            f"{path}: of format {content['lebm_evaluation']}, which no release of lebm has written; run lebm"
            " evaluate again"
        )
    missing = [name for name in _HEAD if name not in content]
    if missing:
        raise UserError(f"{path}: damaged, it has no {', '.join(missing)}")
    expected = set(Figure.__dataclass_fields__)
    for name, suite in content["suites"].items():
        for figure in suite["figures"]:
            if set(figure) != expected:
                raise UserError(
                    f"{path}: damaged, a figure of suite {name} has the fields {', '.join(sorted(figure))}"
                )
    return content


def without_curves(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The figures and protocols of an evaluation, without what only pictures need."""
    suites = {name: {**suite, "curves": {}} for name, suite in evaluation["suites"].items()}
    return {**evaluation, "suites": suites}
