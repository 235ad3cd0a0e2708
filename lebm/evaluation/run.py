"""All suites, suites of other packages, and a function that runs some of them in turn."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from lebm.checkpoint.rebuild import imported
from lebm.errors import UserError
from lebm.evaluation.anomaly import anomaly_suite, ood_suite
from lebm.evaluation.chains import chain_suite
from lebm.evaluation.context import SentenceSubject, Settings, Subject
from lebm.evaluation.image import image_suite, revision_suite
from lebm.evaluation.marginal_likelihood import likelihood_suite
from lebm.evaluation.record import Figure, SuiteResult
from lebm.evaluation.sentences import text_suite
from lebm.evaluation.settings import check_suite

__all__ = ["SUITES", "find_suite", "run_suites", "suite"]


Measure = Callable[[Any, Settings], SuiteResult | Mapping[str, float]]


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
        better: directions of figures, by the first part of their names. The directions of lebm's own figures
            are in :mod:`lebm.report.figures`.

    Example:
        >>> from lebm.evaluation.run import suite
        >>> @suite(better={"latent_norm": "lower"})
        ... def norms(subject, settings):
        ...     return {"latent_norm": float(subject.model.sample_latent(100).norm(dim=1).mean())}
        >>> norms.better
        {'latent_norm': 'lower'}
    """

    def mark(measure: Measure) -> Measure:
        vars(measure).update(subject=subject, better=dict(better or {}))
        return measure

    return mark


SUITES: dict[str, Measure] = {
    "image": image_suite,
    "anomaly": anomaly_suite,
    "ood": ood_suite,
    "likelihood": likelihood_suite,
    "chains": chain_suite,
    "revision": revision_suite,
    "text": suite(subject=SentenceSubject)(text_suite),
}
"""Suites by name, in the order in which they run; each is a function of a subject and settings."""


def find_suite(name: str, trust: Iterable[str] = ()) -> Measure:
    """Return a suite of lebm by its name, or a function of another package by its import path.

    Raises:
        UserError: if the name is unknown, or the package is not trusted, in which case it is not imported.
    """
    if name in SUITES:
        return SUITES[name]
    check_suite(name)
    found: Measure = imported(name, trust)
    if not callable(found):
        raise UserError(f"--suite {name}: not a function")
    return found


def run_suites(
    names: Iterable[str], subject: Subject | SentenceSubject, settings: Settings, trust: Iterable[str] = ()
) -> Iterator[tuple[str, SuiteResult]]:
    """Measure a model with some suites, see :func:`find_suite`.

    ``settings.steps`` is the length of every posterior chain.

    Yields:
        The name of each suite and its result with the wall time, when the suite has ended.
    """
    if settings.steps is not None:
        subject.model.evaluation_steps = settings.steps
    for name, measure in [(name, find_suite(name, trust)) for name in names]:
        started = time.perf_counter()
        if isinstance(subject, getattr(measure, "subject", Subject)):
            result = measure(subject, settings)
            if not isinstance(result, SuiteResult):
                figures = [Figure.plain(figure, float(value), 0, "") for figure, value in result.items()]
                result = SuiteResult({"name": name}, figures)
            if better := getattr(measure, "better", None):
                result.protocol["better"] = better
        else:
            kind = "images" if isinstance(subject, Subject) else "sentences"
            result = SuiteResult({"name": name}, skipped=f"the model is one of {kind}")
        result.wall_time_seconds = round(time.perf_counter() - started, 2)
        yield name, result
