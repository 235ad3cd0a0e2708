"""The results of an evaluation: metrics with all their settings, in one versioned JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lebm.errors import UserError
from lebm.evaluation.intervals import LEVEL, Interval, mean_interval

__all__ = ["FORMAT", "Figure", "SuiteResult", "beside", "merged", "read_evaluation"]

FORMAT = 2


@dataclass(frozen=True)
class Figure:
    """A measured number.

    Attributes:
        name: name, for example ``auroc/anomaly_score``.
        value: value; ``None`` if it is not finite.
        low: lower end of the interval; like ``high`` and ``level``, ``None`` without an interval.
        high: upper end of the interval.
        level: coverage of the interval.
        interval: method of the interval, in words; empty without an interval.
        n: number of samples.
        split: name of the samples.
        details: other values of the figure, such as a base rate.

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
        """Return a figure with an interval."""
        value, low, high = map(_finite, (interval.value, interval.low, interval.high))
        return cls(name, value, low, high, LEVEL, interval.method, n, split, details)

    @classmethod
    def mean(cls, name: str, values: Tensor, split: str, method: str = "", **details: Any) -> Figure:
        """Return the mean of independent values ``(n,)`` with :func:`mean_interval`."""
        return cls.of(name, mean_interval(values, method=method), len(values), split, **details)

    @classmethod
    def plain(cls, name: str, value: float, n: int, split: str, **details: Any) -> Figure:
        """Return a figure without an interval."""
        return cls(name, _finite(value), None, None, None, "", n, split, details)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def beside(figure: Mapping[str, Any]) -> str:
    """Return the references of an area under a precision-recall curve, in words; empty for other figures.

    They are the area of a random score and the lowest one. ``figure`` is a :class:`Figure` as plain values.
    """
    details = figure["details"]
    if not figure["name"].startswith("auprc/") or "base_rate" not in details:
        return ""
    lowest = f", lowest {details['auprc_lowest']:.3g}" if "auprc_lowest" in details else ""
    return f"guessing {details['base_rate']:.3g}{lowest}"


@dataclass
class SuiteResult:
    """The results of one suite.

    Attributes:
        protocol: settings as plain values; ``name`` is a short name.
        figures: measured numbers.
        curves: histograms, ROC and precision-recall curves and traces, as lists of numbers, for the report.
        skipped: reason why the suite or a part of it was not measured; empty if all was measured.
        wall_time_seconds: duration of the suite.
        origin: ``command``, ``started``, ``versions``, ``hardware``, ``data`` and ``chains`` (the settings of
            the samplers), which may differ between suites in the same file.

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


def merged(old: Mapping[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """Return ``new`` with the suites of ``old`` that were not measured again.

    The suites of ``old`` are dropped if weights or seeds differ.
    """
    same = old is not None and all(old[key] == new[key] for key in ("checkpoint_sha256", "seed", "weights"))
    return {**new, "suites": {**(old["suites"] if old is not None and same else {}), **new["suites"]}}


def read_evaluation(path: Path) -> dict[str, Any]:
    """Return the content of an ``evaluation.json``.

    Raises:
        UserError: if the file is unreadable, has another format, or lacks entries of the format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["lebm_evaluation"]
        if version == FORMAT:
            for suite in content["suites"].values():
                for figure in suite["figures"]:
                    Figure(**figure)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a file that lebm evaluate wrote ({str(error)[:80]})") from error
    if version != FORMAT:
        raise UserError(f"{path}: of format {version}, and this lebm reads {FORMAT}; run lebm evaluate again")
    return content
