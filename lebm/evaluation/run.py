"""All suites, suites of other packages, and a function that runs some of them in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from lebm.checkpoint.rebuild import imported
from lebm.errors import UserError
from lebm.evaluation.anomaly import anomaly_suite
from lebm.evaluation.chains import chain_suite
from lebm.evaluation.context import SentenceSubject, Settings, Subject
from lebm.evaluation.image import image_suite
from lebm.evaluation.likelihood_suite import likelihood_suite
from lebm.evaluation.ood import ood_suite
from lebm.evaluation.record import Figure, SuiteResult
from lebm.evaluation.revision import revision_suite
from lebm.evaluation.sentences import text_suite
from lebm.evaluation.settings import check_suite

__all__ = ["SUITES", "Suite", "find_suite", "run_suites", "suite"]


@dataclass(frozen=True)
class Suite:
    """Measurements that are made together.

    Attributes:
        measure: function of the model with its data, and of the settings.
        subject: kind of the measured models, of images or of sentences.
        better: directions of its figures, see :func:`suite`. The directions of lebm's own figures are in
            :mod:`lebm.report.figures`.

    Example:
        >>> from lebm.evaluation.run import SUITES
        >>> list(SUITES)
        ['image', 'anomaly', 'ood', 'likelihood', 'chains', 'revision', 'text']
    """

    measure: Callable[[Any, Settings], SuiteResult]
    subject: type[Subject] | type[SentenceSubject] = Subject
    better: Mapping[str, str] = field(default_factory=dict)


SUITES: dict[str, Suite] = {
    "image": Suite(image_suite),
    "anomaly": Suite(anomaly_suite),
    "ood": Suite(ood_suite),
    "likelihood": Suite(likelihood_suite),
    "chains": Suite(chain_suite),
    "revision": Suite(revision_suite),
    "text": Suite(text_suite, SentenceSubject),
}
"""Suites by name, in the order in which they run."""

Measure = TypeVar("Measure", bound=Callable[[Any, Settings], Any])


def suite(
    *,
    subject: type[Subject] | type[SentenceSubject] = Subject,
    better: Mapping[str, Literal["higher", "lower"]] | None = None,
) -> Callable[[Measure], Measure]:
    """Decorate a custom function that ``lebm evaluate --suite mine.roughness --trust mine`` runs.

    Its arguments are a subject and :class:`Settings`. It returns a :class:`SuiteResult`, or a mapping from
    names to numbers.

    Args:
        subject: type of its first argument, a model of images or of sentences with its data.
        better: directions of figures, by the first part of their names.

    Example:
        >>> from lebm.evaluation.run import find_suite, suite
        >>> @suite(better={"latent_norm": "lower"})
        ... def norms(subject, settings):
        ...     return {"latent_norm": float(subject.model.sample_latent(100).norm(dim=1).mean())}
        >>> norms.suite.better
        {'latent_norm': 'lower'}
    """

    def mark(measure: Measure) -> Measure:
        measure.suite = Suite(measure, subject, dict(better or {}))  # type: ignore[attr-defined]
        return measure

    return mark


def find_suite(name: str, trust: Iterable[str] = ()) -> Suite:
    """Return a suite of lebm by its name, or a function of another package by its import path.

    Raises:
        UserError: if the name is unknown, or the package is not trusted, in which case it is not imported.
    """
    if name in SUITES:
        return SUITES[name]
    check_suite(name)
    found = imported(name, trust)
    if not callable(found):
        raise UserError(f"--suite {name}: not a function")
    return getattr(found, "suite", Suite(found))


_SKIPPED = {Subject: "the model is one of images", SentenceSubject: "the model is one of sentences"}


def run_suites(
    names: Iterable[str], subject: Subject | SentenceSubject, settings: Settings, trust: Iterable[str] = ()
) -> Iterator[tuple[str, SuiteResult]]:
    """Measure a model with some suites.

    Args:
        names: names of suites, see :func:`find_suite`.
        subject: model and its data.
        settings: settings of the measurements; ``steps`` is the length of every posterior chain.
        trust: packages outside lebm whose functions may be imported.

    Yields:
        The name of each suite and its result with the wall time, when the suite has ended.
    """
    if settings.steps is not None:
        subject.model.evaluation_steps = settings.steps
    for name, suite in [(name, find_suite(name, trust)) for name in names]:
        started = time.perf_counter()
        if isinstance(subject, suite.subject):
            result = suite.measure(subject, settings)
            if not isinstance(result, SuiteResult):
                figures = [Figure.plain(figure, float(value), 0, "") for figure, value in result.items()]
                result = SuiteResult({"name": name}, figures)
            if suite.better:
                result.protocol["better"] = dict(suite.better)
        else:
            result = SuiteResult({"name": name}, skipped=_SKIPPED[type(subject)])
        result.wall_time_seconds = round(time.perf_counter() - started, 2)
        yield name, result
