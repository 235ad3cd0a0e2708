"""Which of two values of a metric is the better one, by its name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

__all__ = ["best_of", "better"]

HIGHER = {
    *("auroc", "auprc", "auprc_trapezoid", "log_likelihood", "precision", "recall", "density", "coverage"),
    *("latent_accuracy", "mig", "mig_sup", "bulk_ess", "tail_ess", "active_units"),
}
LOWER = {
    *("fid", "kid", "frechet_distance", "kernel_distance", "reconstruction_mse", "bits_per_dimension", "nll"),
    *("perplexity", "forward_perplexity", "reverse_perplexity", "split_rhat", "fpr_at_95", "prior_mmd"),
}


def better(name: str) -> Literal["higher", "lower"] | None:
    """Whether higher or lower values of a metric are better; ``None`` if the name does not tell.

    Args:
        name: the name in a report, such as ``auroc/anomaly_score``, or a logged one, such as ``test/auroc``.
    """
    parts = name.split("/")
    first = parts[1] if parts[0] in ("val", "test") and len(parts) > 1 else parts[0]
    return "higher" if first in HIGHER else "lower" if first in LOWER else None


def best_of(name: str, values: Sequence[float | None]) -> set[int]:
    """Where the best values stand; empty if there is nothing to choose between, or no direction."""
    finite = {
        place: value for place, value in enumerate(values) if value is not None and math.isfinite(value)
    }
    direction = better(name)
    if direction is None or len(set(finite.values())) < 2:
        return set()
    best = (max if direction == "higher" else min)(finite.values())
    return {place for place, value in finite.items() if value == best}
