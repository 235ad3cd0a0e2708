"""The out-of-distribution suite: the run's test images against other sets, with every score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from lebm.data.images import open_images
from lebm.data.rows import ImageRows, to_unit_range
from lebm.data.splits import limited
from lebm.errors import UserError
from lebm.evaluation.anomaly import add_ranking
from lebm.evaluation.context import Settings, Subject
from lebm.evaluation.data import batches, first_normal
from lebm.evaluation.record import SuiteResult
from lebm.evaluation.scores import MEANINGS, score_pass

__all__ = ["OUT_SETS", "ood_suite"]

Change = Callable[[Tensor, torch.Generator], Tensor]


def _shuffled(x: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.rand(len(x), x[0, 0].numel(), generator=generator).argsort(dim=1)
    return x.flatten(2).gather(2, order[:, None].expand(-1, x.shape[1], -1)).reshape(x.shape)


def _blurred(x: Tensor, generator: torch.Generator) -> Tensor:
    side = min(9, 2 * min(x.shape[2:]) - 1)  # a larger kernel needs more reflected pixels than exist
    return gaussian_blur(x, [side, side], [2.0, 2.0])


OUT_SETS: dict[str, tuple[str, Change]] = {
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
    names = [
        path if part in taken or last.count(part) > 1 else part
        for path, part in zip(paths, last, strict=True)
    ]
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
        x = test.subset(test.anomaly.numpy()).observations(slice(0, settings.ood_images))
        yield names[0], f"the held-out label {subject.images.held_out_label}", x
    channels, size, _ = test.image_shape
    for path, name in zip(settings.ood, names[1:], strict=True):
        found = open_images(path, image_size=size, channels=channels)
        chosen = limited(np.arange(len(found)), settings.ood_images, settings.seed)
        yield name, f"{path} ({found.split})", to_unit_range(torch.from_numpy(found.images[chosen]))
