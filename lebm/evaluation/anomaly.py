"""The anomaly suite: every score of the model against the held-out label, under both splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lebm.evaluation.context import Settings, Subject
from lebm.evaluation.curves import histogram, ranking_curves
from lebm.evaluation.data import batches, subset
from lebm.evaluation.intervals import ranking_intervals
from lebm.evaluation.record import Figure, SuiteResult
from lebm.evaluation.scores import MEANINGS, score_pass
from lebm.metrics.anomaly import lowest_average_precision

__all__ = ["anomaly_suite", "test_scores"]


def test_scores(subject: Subject, settings: Settings) -> dict[str, Tensor]:
    """Scores of the run's own test split, ``(N,)`` each in its order, computed once; the same as those of
    ``lebm test``.
    """
    if "test scores" not in subject.memory:
        device = subject.model.device
        data = batches(subject.images.test, settings.batch_size, device)
        subject.memory["test scores"] = score_pass(subject.model, data, "test images")
    return subject.memory["test scores"]


def anomaly_suite(subject: Subject, settings: Settings) -> SuiteResult:
    """AUROC, AUPRC and false positives at 95 % recall of every score, with the base rate and the lowest
    possible AUPRC beside them.
    """
    held_out = subject.images.held_out_label
    protocol: dict[str, Any] = {
        "name": "held-out label",
        "held_out_label": held_out,
        "splits": "test rows of each protocol, without the rows that this run was trained on",
        "seed": settings.seed,
        "bootstrap_seed": settings.seed,
    }
    if held_out is None:
        return SuiteResult(protocol, skipped="the run has no held_out_label")
    result = SuiteResult(protocol)
    for name, rows in subject.images.protocols.items():
        scores = _scores_of(subject, settings, rows.rows, name)
        anomaly = scores.pop("label") == held_out
        positives, negatives = int(anomaly.sum()), int((~anomaly).sum())
        if not positives or not negatives:
            continue
        details = {
            "base_rate": positives / (positives + negatives),
            "auprc_lowest": lowest_average_precision(positives, negatives),
            "anomalies": positives,
            "rows_left_out_as_trained_on": _left_out(subject, name, len(rows)),
        }
        for score, values in scores.items():
            for figure, interval in ranking_intervals(
                values, anomaly, resamples=settings.resamples, seed=settings.seed
            ).items():
                result.figures.append(Figure.of(f"{figure}/{score}", interval, len(values), name, **details))
            result.curves[f"{name}/{score}"] = {
                "histogram": histogram({"normal": values[~anomaly], f"label {held_out}": values[anomaly]}),
                **ranking_curves(values, anomaly),
            }
        protocol["scores"] = {score: MEANINGS[score] for score in scores}
    return result


def _scores_of(subject: Subject, settings: Settings, numbers: np.ndarray, name: str) -> dict[str, Tensor]:
    """Scores of rows by their source number: from the run's own test pass where they are in it, else
    computed.
    """
    own = subject.images.test.rows
    found = test_scores(subject, settings)
    extra = np.setdiff1d(numbers, own)
    if len(extra):
        rows = subject.images.protocols[name]
        data = batches(
            subset(rows, np.isin(rows.rows, extra)), settings.batch_size, subject.model.device, first=len(own)
        )
        more = score_pass(subject.model, data, f"test images of the {name} split")
        found = {score: torch.cat([values, more[score]]) for score, values in found.items()}
    every = np.concatenate([own, extra])
    order = np.argsort(every)
    places = torch.from_numpy(order[np.searchsorted(every[order], numbers)])
    return {score: values[places] for score, values in found.items()}


def _left_out(subject: Subject, name: str, kept: int) -> int:
    return subject.images.protocol_sizes[name] - kept
