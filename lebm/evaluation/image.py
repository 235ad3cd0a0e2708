"""The image suite: reconstructions, and samples against real images in a feature space."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import t
from torch import Tensor
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import poly_mmd

from lebm.component import describe
from lebm.data.dataset import ImageRows
from lebm.errors import UserError
from lebm.evaluation.anomaly import test_scores
from lebm.evaluation.context import Settings, Subject
from lebm.evaluation.data import batches, subset
from lebm.evaluation.draws import CHUNK, check_images, drawn_images
from lebm.evaluation.intervals import Interval, jackknife_interval, mean_interval
from lebm.evaluation.record import Figure, SuiteResult
from lebm.metrics.features import FeaturesUnavailableError
from lebm.metrics.frechet import frechet_distance
from lebm.metrics.neighbours import neighbour_rows

__all__ = ["check_counts", "feature_rows", "image_suite", "kernel_distance", "real_rows", "sample_batches"]

BLOCKS = 20
KERNEL_SUBSET = 1000
NEIGHBOURS = 5
CLASSIFIER_PARTS = 10


def image_suite(subject: Subject, settings: Settings) -> SuiteResult:
    """Squared error of reconstructions, Frechet and kernel distance, precision, recall, density, coverage,
    and a classifier's score.

    Features are kept on the host: no step holds all images, or all their features, on the accelerator.

    Raises:
        UserError: if images or samples are not finite, not in [-1, 1], not of one or three channels, or too
            few.
    """
    extractor = settings.extractor
    try:
        extractor.prepare()
    except FeaturesUnavailableError as error:
        figures = [_reconstruction(subject, settings)]
        return SuiteResult(
            {"name": "reconstructions", "features": None}, figures, skipped=f"the distances are: {error}"
        )
    check_counts(subject, settings)
    extractor.to(subject.model.device).eval()
    rows = real_rows(subject, settings)
    result = SuiteResult(
        {
            "name": "samples against real images",
            "n_samples": settings.n_samples,
            "real_split": settings.real_split,
            "real_images": len(rows),
            "features": describe(extractor),
            "features_digest": extractor.digest,
            "features_note": extractor.note,
            "chunk_size": CHUNK,
            "prior_steps": settings.sample_steps,
            "kernel": f"(x'y / d + 1)^3, means over disjoint blocks of at most {KERNEL_SUBSET}",
            "neighbours": NEIGHBOURS,
            "mean_squared_error": (
                "range [-1, 1], mean over pixels, channels and the normal images of the test split"
            ),
            "seed": settings.seed,
        }
    )
    result.figures.append(_reconstruction(subject, settings))
    with torch.no_grad():
        real, _ = feature_rows(extractor, _real(rows, settings, subject.model.device), settings.real_split)
        fake, logits = feature_rows(extractor, sample_batches(subject, settings), "samples")
    name = extractor.figure
    kernel = "kid" if name == "fid" else name.replace("frechet", "kernel")
    result.figures += [
        Figure.of(name, _frechet(real, fake), len(fake), settings.real_split),
        Figure.of(kernel, kernel_distance(real, fake, settings.seed), len(fake), settings.real_split),
        *_neighbours(real, fake, settings),
    ]
    if logits is not None:
        result.figures.append(
            _classifier(logits, settings.seed, "inception_score" if name == "fid" else "classifier_score")
        )
    return result


def _reconstruction(subject: Subject, settings: Settings) -> Figure:
    scores = test_scores(subject, settings)
    held_out = subject.images.held_out_label
    error = scores["reconstruction"]
    normal = error if held_out is None else error[scores["label"] != held_out]
    return Figure.of("reconstruction_mse", mean_interval(normal), len(normal), "test")


def real_rows(subject: Subject, settings: Settings) -> ImageRows:
    """What samples are compared with: the training rows, or the normal ones of the test split."""
    images = subject.images
    if settings.real_split == "train":
        if images.train is None:
            raise UserError(
                "the training images are not known, so samples cannot be compared with them; add --real-split"
                " test"
            )
        return images.train
    labels = images.test.labels.numpy()
    return (
        images.test if images.held_out_label is None else subset(images.test, labels != images.held_out_label)
    )


def check_counts(subject: Subject, settings: Settings) -> None:
    """Refuse too few images for the intervals of distances, on which they are cut into blocks.

    Raises:
        UserError: for fewer samples or real images than blocks.
    """
    count = len(real_rows(subject, settings))
    if min(settings.n_samples, count) < BLOCKS:
        found = f"--n-samples {settings.n_samples} and the {count} of the {settings.real_split} split"
        raise UserError(f"distances need at least {BLOCKS} samples and {BLOCKS} real images, not {found}")


def _real(rows: ImageRows, settings: Settings, device: torch.device) -> Iterator[Tensor]:
    for batch in batches(rows, settings.batch_size, device):
        yield batch["x"]


def sample_batches(subject: Subject, settings: Settings) -> Iterator[Tensor]:
    """The model's samples in chunks ``(n, C, H, W)``, finite and in [-1, 1]."""
    shape = subject.images.test.image_shape
    for chunk, first in enumerate(range(0, settings.n_samples, CHUNK)):
        count = min(CHUNK, settings.n_samples - first)
        x, finite = drawn_images(subject.model, count, chunk, settings.seed, settings.sample_steps, shape)
        if not bool(finite.all()):
            raise UserError(
                f"{int((~finite).sum())} of the samples {first} to {first + count - 1} are not finite; see"
                " lebm diagnose"
            )
        yield x


def feature_rows(extractor: Any, images: Iterator[Tensor], what: str) -> tuple[Tensor, Tensor | None]:
    """Features ``(N, d)`` and logits, where there are any, on the host in float64."""
    features: list[Tensor] = []
    logits: list[Tensor] = []
    for x in images:
        check_images(x, f"the {what}")
        some, more = extractor.with_logits(x)
        features.append(some.double().cpu())
        if more is not None:
            logits.append(more.double().cpu())
    return torch.cat(features), torch.cat(logits) if logits else None


def _frechet(real: Tensor, fake: Tensor) -> Interval:
    """Of all the samples, with the noise of their number; the real images are fixed."""
    mean, covariance = real.mean(dim=0), real.T.cov()
    blocks = fake.tensor_split(BLOCKS)
    sums = torch.stack([block.sum(dim=0) for block in blocks])
    outers = torch.stack([block.T @ block for block in blocks])
    counts = torch.tensor([len(block) for block in blocks], dtype=torch.float64)

    def distance(chosen: Sequence[int]) -> float:
        n = counts[chosen].sum()
        centre = sums[chosen].sum(dim=0) / n
        spread = (outers[chosen].sum(dim=0) - n * torch.outer(centre, centre)) / (n - 1)
        return float(frechet_distance(mean, covariance, centre, spread))

    return jackknife_interval(distance, BLOCKS)


def kernel_distance(real: Tensor, fake: Tensor, seed: int) -> Interval:
    """Unbiased squared maximum mean discrepancy with KID's kernel, on disjoint blocks, whose spread is an
    honest error.
    """
    size = max(
        2, min(KERNEL_SUBSET, len(real) // 10, len(fake) // 10)
    )  # ten blocks for an interval, where there are so few
    generator = torch.Generator().manual_seed(seed)
    parts = [x[torch.randperm(len(x), generator=generator)].split(size) for x in (real, fake)]
    values = [float(poly_mmd(a, b)) for a, b in zip(*parts, strict=False) if len(a) == len(b) == size]
    return mean_interval(torch.tensor(values), method=f"Student's t, {len(values)} disjoint blocks of {size}")


def _neighbours(real: Tensor, fake: Tensor, settings: Settings) -> list[Figure]:
    """As many real images as samples, chosen by the seed: all four figures depend on both numbers."""
    chosen = np.random.RandomState(settings.seed).permutation(len(real))[: len(fake)]
    rows = neighbour_rows(real[torch.from_numpy(chosen)].float(), fake.float(), NEIGHBOURS)
    method = "Student's t over samples, the other set fixed"
    return [
        Figure.of(name, mean_interval(values, method=method), len(values), settings.real_split)
        for name, values in rows.items()
    ]


def _classifier(logits: Tensor, seed: int, name: str) -> Figure:
    """exp of the mean divergence of the predicted classes from their mean, over ten parts; at most the number
    of classes.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it keeps the logits
        metric = InceptionScore(feature=torch.nn.Identity(), splits=CLASSIFIER_PARTS)
        torch.manual_seed(seed)  # torchmetrics shuffles
        metric.update(logits)
        mean, spread = (float(value) for value in metric.compute())
    half = float(t.ppf(0.975, CLASSIFIER_PARTS - 1)) * spread / CLASSIFIER_PARTS**0.5
    return Figure.of(
        name,
        Interval(mean, mean - half, mean + half, 0.95, f"Student's t over {CLASSIFIER_PARTS} parts"),
        len(logits),
        "samples",
    )
