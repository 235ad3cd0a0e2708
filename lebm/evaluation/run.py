"""Running suites one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from lebm.evaluation.anomaly import anomaly_suite
from lebm.evaluation.chains import chain_suite
from lebm.evaluation.context import SentenceSubject, Settings, Subject
from lebm.evaluation.image import image_suite
from lebm.evaluation.likelihood_suite import likelihood_suite
from lebm.evaluation.ood import ood_suite
from lebm.evaluation.record import SuiteResult
from lebm.evaluation.revision import revision_suite
from lebm.evaluation.sentences import text_suite

__all__ = ["SUITES", "run_suites"]

Suite = Callable[[Subject, Settings], SuiteResult]

SUITES: dict[str, Suite] = {
    "image": image_suite,
    "anomaly": anomaly_suite,
    "ood": ood_suite,
    "likelihood": likelihood_suite,
    "chains": chain_suite,
    "revision": revision_suite,
}


def run_suites(
    names: Iterable[str], subject: Subject | SentenceSubject, settings: Settings
) -> Iterator[tuple[str, SuiteResult]]:
    """Names and results, each as soon as it is there and with its wall time; ``settings.steps`` holds for
    every posterior chain.
    """
    if settings.steps is not None:
        subject.model.evaluation_steps = settings.steps
    for name in names:
        started = time.perf_counter()
        result = _measure(name, subject, settings)
        result.wall_time_seconds = round(time.perf_counter() - started, 2)
        yield name, result


def _measure(name: str, subject: Subject | SentenceSubject, settings: Settings) -> SuiteResult:
    if isinstance(subject, SentenceSubject):
        if name == "text":
            return text_suite(subject.model, subject.data, settings)
        return SuiteResult({"name": name}, skipped="the model is one of sentences")
    if name == "text":
        return SuiteResult({"name": name}, skipped="the model is one of images")
    return SUITES[name](subject, settings)
