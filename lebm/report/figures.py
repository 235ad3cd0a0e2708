"""Figures of a run: their order on the page, and the best of several values."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lebm.report.gather import RunRecord

__all__ = ["best_of", "better", "directions", "figures_of", "head_figures", "key_figures", "own_figure"]

TEST_PASS = "test pass"  # the suite of the values in test.json
KEY_FIGURES = {
    "image": ("reconstruction_mse", "fid", "frechet_distance/"),
    "anomaly": ("auroc/anomaly_score", "auprc/anomaly_score"),
    "likelihood": ("log_likelihood/ais",),
    "text": ("perplexity", "reverse_perplexity"),
    TEST_PASS: ("auroc", "reconstruction_mse", "fid", "frechet_distance/", "perplexity", "nll", "auprc"),
}
"""Main figures by suite; a name that ends with a slash stands for all names with this prefix."""
HIGHER = {
    *("auroc", "auprc", "auprc_trapezoid", "log_likelihood", "precision", "recall", "density", "coverage"),
    *("latent_accuracy", "mig", "mig_sup", "bulk_ess", "tail_ess", "active_units"),
}
LOWER = {
    *("fid", "kid", "frechet_distance", "kernel_distance", "reconstruction_mse", "bits_per_dimension", "nll"),
    *("perplexity", "forward_perplexity", "reverse_perplexity", "split_rhat", "fpr_at_95", "prior_mmd"),
}


def directions(records: Iterable[RunRecord]) -> dict[str, str]:
    """Return the directions of figures of suites from outside lebm, see :func:`lebm.evaluation.run.suite`."""
    suites = (part for record in records for part in record.evaluation.get("suites", {}).values())
    return {name: way for part in suites for name, way in part["protocol"].get("better", {}).items()}


def better(name: str, own: Mapping[str, str] = {}) -> str:
    """Return whether ``"higher"`` or ``"lower"`` values of a metric are better; empty if unknown.

    Args:
        name: name of the metric, such as ``auroc/anomaly_score``.
        own: directions of suites from outside lebm, by the first part of the name.
    """
    first = name.removeprefix("val/").removeprefix("test/").partition("/")[0]
    if first in own:
        return own[first]
    return "higher" if first in HIGHER else "lower" if first in LOWER else ""


def best_of(name: str, figures: Sequence[dict[str, Any] | None], own: Mapping[str, str] = {}) -> set[int]:
    """Return the positions of the best values; empty if all are equal or no direction is known."""
    values = [
        math.nan if figure is None or figure["value"] is None else figure["value"] for figure in figures
    ]
    finite = set(filter(math.isfinite, values))
    if not better(name, own) or len(finite) < 2:
        return set()
    best = max(finite) if better(name, own) == "higher" else min(finite)
    return {place for place, value in enumerate(values) if value == best}


def figures_of(record: RunRecord) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return every figure by suite, name and split; ``test.json`` is the suite ``test pass``."""
    suites = record.evaluation.get("suites", {})
    found = {
        (suite, figure["name"], figure["split"]): figure
        for suite, part in suites.items()
        for figure in part["figures"]
    }
    for logged, value in record.test.get("metrics", {}).items():
        name = str(logged).removeprefix("test/")
        alone: dict[str, Any] = {"low": None, "high": None, "n": None, "details": {}}
        found[TEST_PASS, name, "test"] = {"name": name, "split": "test", "value": value, **alone}
    return found


def key_figures(records: Iterable[RunRecord]) -> list[tuple[str, str]]:
    """Return suites and names that any run has, in the order of ``KEY_FIGURES``.

    A value of a test pass is omitted if a suite of any run has a value of the same kind.
    """
    having = list(dict.fromkeys(key[:2] for record in records for key in figures_of(record)))
    ordered = [
        (suite, name)
        for suite, keys in KEY_FIGURES.items()
        for key in keys
        for of, name in having
        if of == suite and (name == key or (key.endswith("/") and name.startswith(key)))
    ]
    measured = {name.partition("/")[0] for suite, name in ordered if suite != TEST_PASS}
    return [key for key in ordered if key[0] != TEST_PASS or key[1].partition("/")[0] not in measured]


def own_figure(record: RunRecord, suite: str, name: str) -> dict[str, Any] | None:
    """Return a figure of a run, on its own anomaly split if a suite has measured several."""
    found = [figure for key, figure in figures_of(record).items() if key[:2] == (suite, name)]
    part = record.evaluation.get("suites", {}).get(suite, {})
    split = (part.get("origin", {}).get("data") or {}).get("anomaly_split")
    own = [figure for figure in found if figure["split"] == split] or found
    return own[0] if own else None


def head_figures(record: RunRecord) -> list[dict[str, Any]]:
    """Return two figures for the head of a run: the first of each suite before the second of any."""
    keys = key_figures([record])
    first = {suite: (suite, name) for suite, name in reversed(keys)}
    ordered = [*reversed(first.values()), *keys]
    found = [own_figure(record, *key) for key in dict.fromkeys(ordered)]
    return [figure for figure in found if figure is not None][:2]
