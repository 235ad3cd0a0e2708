"""The anomaly suite: separation of the held-out label by every score, under both splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lebm.data.rows import ImageRows
from lebm.evaluation.context import Settings, Subject
from lebm.evaluation.data import batches, some_rows
from lebm.evaluation.intervals import histogram, ranking_curves, ranking_intervals
from lebm.evaluation.record import Figure, SuiteResult
from lebm.evaluation.scores import MEANINGS, combined, combined_parts, gathered, score_pass
from lebm.metrics.anomaly import FEWEST_NORMAL, lowest_average_precision

__all__ = ["add_ranking", "anomaly_suite", "test_scores"]


def test_scores(subject: Subject, settings: Settings) -> dict[str, Tensor]:
    """Return the scores of the test split of the run, ``(N,)`` each, in the order of the split.

    They equal the scores of ``lebm test``. ``subject.memory`` stores them after the first call.
    """
    if "test scores" not in subject.memory:
        device = subject.model.device
        data = batches(subject.images.test, settings.batch_size, device)
        subject.memory["test scores"] = score_pass(subject.model, data, "test images")
    return subject.memory["test scores"]


def anomaly_suite(subject: Subject, settings: Settings) -> SuiteResult:
    """Measure AUROC, AUPRC and the false positive rate at 95% recall of every score.

    A run without a held-out label skips the suite.
    """
    held_out = subject.images.held_out_label
    protocol: dict[str, Any] = {
        "name": "held-out label",
        "held_out_label": held_out,
        "splits": "test rows of each protocol, without the rows that this run was trained on",
        "seed": settings.seed,
        "bootstrap_seed": settings.seed,
    }
    result = SuiteResult(protocol)
    if held_out is None:
        result.skipped = "the run has no held_out_label"
        return result
    normal = _normal_scores(subject, settings)
    protocol["training_images_for_combined"] = len(normal["reconstruction"]) if normal else 0
    for name, rows in subject.images.protocols.items():
        scores = _scores_of(subject, settings, rows, name)
        anomaly = rows.anomaly
        assert anomaly is not None
        positives, negatives = int(anomaly.sum()), int((~anomaly).sum())
        if not positives or not negatives:
            continue
        if normal:
            scores["combined"] = combined(scores, normal)
        left_out = subject.images.protocol_sizes[name] - len(rows)
        counts = {"anomalies": positives, "rows_left_out_as_trained_on": left_out}
        groups = ("normal", f"label {held_out}" if isinstance(held_out, int) else "held-out labels")
        for score, values in scores.items():
            add_ranking(result, settings, name, score, values, anomaly, groups, **counts)
        protocol["scores"] = {score: MEANINGS[score] for score in scores}
    return result


def add_ranking(
    result: SuiteResult,
    settings: Settings,
    split: str,
    score: str,
    values: Tensor,
    anomaly: Tensor,
    groups: tuple[str, str],
    **details: Any,
) -> None:
    """Add the ranking metrics and the curves of one score ``values: (N,)`` to a result, in place.

    ``anomaly`` is the mask of the anomalies, ``(N,)`` of ``bool``, with both kinds; ``groups`` are the names
    of the normal samples and of the anomalies in the histogram, and ``details`` are stored with every metric.
    """
    positives, negatives = int(anomaly.sum()), int((~anomaly).sum())
    details = {
        "base_rate": positives / len(anomaly),
        "auprc_lowest": lowest_average_precision(positives, negatives),
        **details,
    }
    intervals = ranking_intervals(values, anomaly, resamples=settings.resamples, seed=settings.seed)
    result.figures += [
        Figure.of(f"{metric}/{score}", interval, len(values), split, **details)
        for metric, interval in intervals.items()
    ]
    result.curves[f"{split}/{score}"] = {
        "histogram": histogram(dict(zip(groups, (values[~anomaly], values[anomaly]), strict=True))),
        **ranking_curves(values, anomaly),
    }


def _normal_scores(subject: Subject, settings: Settings) -> dict[str, Tensor]:
    """Return the scores of seeded training images for :func:`~lebm.evaluation.scores.combined`.

    It is empty if the data of the run are unknown or too few, or the model has no prior on latents.
    """
    rows = subject.images.train
    if rows is None or len(rows) < FEWEST_NORMAL or subject.model.latent_prior is None:
        return {}
    model = subject.model
    data = batches(some_rows(rows, settings.seed), settings.batch_size, model.device)
    parts = (
        combined_parts(model, batch["x"], generator=model.sample_noise("encode", batch["index"]))
        for batch in data
    )
    return gathered(parts, "training images")


def _scores_of(subject: Subject, settings: Settings, rows: ImageRows, name: str) -> dict[str, Tensor]:
    """Return the scores of the rows of a protocol, ``(len(rows),)`` each; the test rows are scored once."""
    own = subject.images.test.rows
    scores = test_scores(subject, settings)
    extra = rows.subset(~np.isin(rows.rows, own))
    if len(extra):
        data = batches(extra, settings.batch_size, subject.model.device, first=len(own))
        more = score_pass(subject.model, data, f"test images of the {name} split")
        scores = {score: torch.cat([values, more[score]]) for score, values in scores.items()}
    places = {row: place for place, row in enumerate([*own, *extra.rows])}
    positions = torch.tensor([places[row] for row in rows.rows])
    return {score: values[positions] for score, values in scores.items()}
