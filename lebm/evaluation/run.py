"""All suites, and a function that runs some of them one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lebm.evaluation.anomaly import anomaly_suite
from lebm.evaluation.chains import chain_suite
from lebm.evaluation.context import SentenceSubject, Settings, Subject
from lebm.evaluation.image import image_suite
from lebm.evaluation.likelihood_suite import likelihood_suite
from lebm.evaluation.ood import ood_suite
from lebm.evaluation.record import SuiteResult
from lebm.evaluation.revision import revision_suite
from lebm.evaluation.sentences import text_suite

__all__ = ["SUITES", "Suite", "run_suites"]


@dataclass(frozen=True)
class Suite:
    """Measurements that are made together.

    Attributes:
        measure: function of the model with its data, and of the settings.
        subject: the kind of models that it measures, models of images or models of sentences.

    Example:
        >>> from lebm.evaluation.run import SUITES
        >>> list(SUITES)
        ['image', 'anomaly', 'ood', 'likelihood', 'chains', 'revision', 'text']
    """

    measure: Callable[[Any, Settings], SuiteResult]
    subject: type[Subject] | type[SentenceSubject] = Subject


SUITES: dict[str, Suite] = {
    "image": Suite(image_suite),
    "anomaly": Suite(anomaly_suite),
    "ood": Suite(ood_suite),
    "likelihood": Suite(likelihood_suite),
    "chains": Suite(chain_suite),
    "revision": Suite(revision_suite),
    "text": Suite(text_suite, SentenceSubject),
}
"""Every suite by name, in the order in which they run."""

_SKIPPED = {Subject: "the model is one of images", SentenceSubject: "the model is one of sentences"}


def run_suites(
    names: Iterable[str], subject: Subject | SentenceSubject, settings: Settings
) -> Iterator[tuple[str, SuiteResult]]:
    """Measure a model with some suites.

    Args:
        names: keys of :data:`SUITES`.
        subject: the model and its data.
        settings: how much is measured; ``steps`` is the length of every posterior chain.

    Yields:
        The name of each suite and its result with the wall time, as soon as the suite has ended.
    """
    if settings.steps is not None:
        subject.model.evaluation_steps = settings.steps
    for name in names:
        started = time.perf_counter()
        suite = SUITES[name]
        if isinstance(subject, suite.subject):
            result = suite.measure(subject, settings)
        else:
            result = SuiteResult({"name": name}, skipped=_SKIPPED[type(subject)])
        result.wall_time_seconds = round(time.perf_counter() - started, 2)
        yield name, result
