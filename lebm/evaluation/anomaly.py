"""The suites ``anomaly`` and ``ood``: separation of the held-out label and of other sets by every score."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from lebm.data.images import open_images
from lebm.data.rows import ImageRows, to_unit_range
from lebm.data.splits import limited
from lebm.errors import UserError
from lebm.evaluation.context import Settings, Subject
from lebm.evaluation.data import batches, first_normal, some_rows
from lebm.evaluation.intervals import histogram, ranking_curves, ranking_intervals
from lebm.evaluation.record import Figure, SuiteResult
from lebm.evaluation.scores import MEANINGS, combined, combined_parts, gathered, score_pass
from lebm.metrics.anomaly import FEWEST_NORMAL, lowest_average_precision

__all__ = ["OUT_SETS", "add_ranking", "anomaly_suite", "ood_suite", "test_scores"]


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
        if anomaly.all() or not anomaly.any():
            continue
        if normal:
            scores["combined"] = combined(scores, normal)
        left_out = subject.images.protocol_sizes[name] - len(rows)
        counts = {"anomalies": int(anomaly.sum()), "rows_left_out_as_trained_on": left_out}
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


def _shuffled(x: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.rand(len(x), x[0, 0].numel(), generator=generator).argsort(dim=1)
    return x.flatten(2).gather(2, order[:, None].expand(-1, x.shape[1], -1)).reshape(x.shape)


def _blurred(x: Tensor, generator: torch.Generator) -> Tensor:
    side = min(9, 2 * min(x.shape[2:]) - 1)  # a larger kernel needs more reflected pixels than exist
    return gaussian_blur(x, [side, side], [2.0, 2.0])


OUT_SETS: dict[str, tuple[str, Callable[[Tensor, torch.Generator], Tensor]]] = {
    "inverted": ("the same images with dark and light exchanged", lambda x, generator: -x),
    "rotated": ("the same images turned by a quarter", lambda x, generator: x.rot90(1, (2, 3))),
    "upside_down": ("the same images upside down", lambda x, generator: x.flip(2)),
    "blurred": ("the same images blurred (sigma 2 pixels)", _blurred),
    "shuffled": ("the same images, each with its pixels in another order", _shuffled),
    "noisy": (
        "the same images with noise of standard deviation 0.5",
        lambda x, generator: (x + 0.5 * torch.randn(x.shape, generator=generator)).clamp(-1, 1),
    ),
    "noise": ("uniform noise", lambda x, generator: 2 * torch.rand(x.shape, generator=generator) - 1),
    "constant": (
        "one random grey level per image",
        lambda x, generator: (2 * torch.rand(len(x), 1, 1, 1, generator=generator) - 1).expand_as(x).clone(),
    ),
}
"""Sets made from the run's test images: description and function by name."""


def ood_suite(subject: Subject, settings: Settings) -> SuiteResult:
    """Measure AUROC, AUPRC and the false positive rate at 95% recall, for every score and every set.

    Raises:
        UserError: if an additional set cannot be read, or is given twice.
    """
    if len(shape := subject.images.test.image_shape) != 3:
        skipped = f"the sets are made of images, and the data have the shape {shape}"
        return SuiteResult({"name": "test rows against other sets"}, skipped=skipped)
    label = subject.images.held_out_label
    held_out = f"label_{label}" if isinstance(label, int) else "held_out_labels"
    names = [held_out, *_names(settings.ood, {"in", *OUT_SETS, held_out})]
    inside = first_normal(subject.images, settings.ood_images, settings.seed)
    result = SuiteResult(
        {
            "name": "test images of the run against other sets",
            "images_a_set": settings.ood_images,
            "in_distribution": "normal test images of the run, the first of a seeded permutation",
            "sets": {},
            "seed": settings.seed,
        }
    )

    def scored(x: Tensor, what: str, number: int) -> dict[str, Tensor]:
        """Return all scores; every set has different indices, and so different noise."""
        rows = ImageRows([x.numpy()], np.full(len(x), -1), np.arange(len(x)))
        data = batches(rows, settings.batch_size, subject.model.device, first=number * 10**6)
        return score_pass(subject.model, data, what)

    own = scored(inside, "test images", 0)
    result.protocol["scores"] = {score: MEANINGS[score] for score in own}
    for number, (name, meaning, x) in enumerate(_sets(subject, settings, inside, names), 1):
        result.protocol["sets"][name] = meaning
        scores = scored(x, name, number)
        anomaly = torch.arange(len(inside) + len(x)) >= len(inside)
        for score, values in own.items():
            both = torch.cat([values, scores[score]])
            add_ranking(result, settings, name, score, both, anomaly, ("in", name))
    return result


def _names(paths: Sequence[str], taken: set[str]) -> list[str]:
    """Return the last part of each path, or the whole path if the last part is not unique."""
    paths = [path.rstrip("/") for path in paths]
    last = [path.rsplit("/", 1)[-1] for path in paths]
    unclear = {part for part in last if part in taken or last.count(part) > 1}
    names = [path if part in unclear else part for path, part in zip(paths, last, strict=True)]
    if clash := [name for name in names if names.count(name) > 1 or name in taken]:
        raise UserError(f"--ood {clash[0]} is the name of another set; write it once, or as ./{clash[0]}")
    return names


def _sets(
    subject: Subject, settings: Settings, inside: Tensor, names: list[str]
) -> Iterator[tuple[str, str, Tensor]]:
    """Iterate over name, description and images of every set; ``names`` are of the sets from data."""
    for name, (meaning, change) in OUT_SETS.items():
        yield name, meaning, change(inside, torch.Generator().manual_seed(settings.seed))
    test = subject.images.test
    if test.anomaly is not None:
        held_out = test.subset(test.anomaly.numpy())
        x = held_out.observations(limited(np.arange(len(held_out)), settings.ood_images, settings.seed))
        yield names[0], f"the held-out label {subject.images.held_out_label}", x
    channels, size, _ = test.image_shape
    for path, name in zip(settings.ood, names[1:], strict=True):
        found = open_images(path, image_size=size, channels=channels)
        chosen = limited(np.arange(len(found)), settings.ood_images, settings.seed)
        yield name, f"{path} ({found.split})", to_unit_range(torch.from_numpy(found.images[chosen]))
