"""The suites ``image`` and ``revision``: reconstructions, and samples against real images by features."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from lebm.component import describe
from lebm.data.rows import ImageRows
from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel, Revises
from lebm.evaluation.anomaly import test_scores
from lebm.evaluation.chains import CHUNK, has_pool, sample_chunks
from lebm.evaluation.context import Settings, Subject
from lebm.evaluation.data import batches, normal_rows
from lebm.evaluation.intervals import Interval, jackknife_interval, mean_interval
from lebm.evaluation.record import Figure, SuiteResult
from lebm.metrics.features import FeatureExtractor, FeaturesUnavailableError
from lebm.metrics.frechet import frechet_distance, neighbour_rows
from lebm.metrics.reconstruction import reconstruction_rows

__all__ = ["check_images", "image_suite", "kernel_distance", "reconstructions_after", "revision_suite"]

BLOCKS = 20
KERNEL_SUBSET = 1000
NEIGHBOURS = 5
CLASSIFIER_PARTS = 10
SETS = 5  # sets of samples of the revision suite
_SLACK = 1e-3  # larger than the rounding of half precision


@torch.no_grad()
def image_suite(subject: Subject, settings: Settings) -> SuiteResult:
    """Measure reconstruction error, distances of samples to real images, and the score of a classifier.

    Features are stored on the host, so the accelerator never holds the features of all images.

    Raises:
        UserError: if images or samples are non-finite, outside [-1, 1], not of one or three channels, or too
            few.
    """
    extractor, missing = settings.extractor, without_features(subject, settings)
    anomaly, error = subject.images.test.anomaly, test_scores(subject, settings)["reconstruction"]
    figures = [Figure.mean("reconstruction_mse", error if anomaly is None else error[~anomaly], "test")]
    if missing:
        return SuiteResult({"name": "reconstructions", "features": None}, figures, skipped=missing)
    result = SuiteResult(
        {
            "name": "samples against real images",
            "n_samples": settings.n_samples,
            "real_split": settings.real_split,
            "real_images": len(real_rows(subject, settings)),
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
        },
        figures,
    )
    real = real_features(subject, settings)
    fake, logits = feature_rows(extractor, sample_batches(subject, settings), "samples")
    name, kernel = extractor.figure, kernel_distance(real, fake, settings.seed)
    result.figures += [
        Figure.of(name, _frechet(real, fake), len(fake), settings.real_split),
        Figure.of(kernel_name(extractor), kernel, len(fake), settings.real_split),
    ]
    # An equal number of real images, chosen by the seed.
    chosen = np.random.RandomState(settings.seed).permutation(len(real))[: len(fake)]
    neighbours = neighbour_rows(real[torch.from_numpy(chosen)].float(), fake.float(), NEIGHBOURS)
    method, split = "Student's t or Wilson over samples, the other set fixed", settings.real_split
    result.figures += [Figure.mean(measure, values, split, method) for measure, values in neighbours.items()]
    if has_pool(subject.model):
        pooled, _ = feature_rows(extractor, sample_batches(subject, settings, pool=True), "samples")
        pool = Figure.of(f"{name}/pool", _frechet(real, pooled), len(pooled), settings.real_split)
        result.figures.append(pool)
    if logits is not None:
        score = "inception_score" if name == "fid" else "classifier_score"
        result.figures.append(_classifier(logits, settings.seed, score))
    return result


def without_features(subject: Subject, settings: Settings) -> str:
    """Return the reason why distances cannot be measured; empty if the features are ready.

    Too few samples or real images are an error, because intervals need at least one image per block.
    """
    shape = subject.images.test.image_shape
    if len(shape) != 3:
        return f"without distances: they are of images, and the data have the shape {shape}"
    try:
        settings.extractor.prepare()
    except FeaturesUnavailableError as error:
        return f"without distances: {error}"
    count = len(real_rows(subject, settings))
    if min(settings.n_samples, count) < BLOCKS:
        numbers = f"--n-samples {settings.n_samples} and the {count} of the {settings.real_split} split"
        raise UserError(f"distances need at least {BLOCKS} samples and {BLOCKS} real images, not {numbers}")
    settings.extractor.to(subject.model.device).eval()
    return ""


def real_rows(subject: Subject, settings: Settings) -> ImageRows:
    """Return the real images for the comparison: the training rows, or the normal rows of the test split."""
    if settings.real_split != "train":
        return normal_rows(subject.images)
    if subject.images.train is None:
        raise UserError(
            "the training images are not known, so samples cannot be compared with them; add"
            " --real-split test"
        )
    return subject.images.train


def real_features(subject: Subject, settings: Settings) -> Tensor:
    """Return the features of :func:`real_rows`, ``(N, d)``."""
    data = batches(real_rows(subject, settings), settings.batch_size, subject.model.device)
    return feature_rows(settings.extractor, (batch["x"] for batch in data), settings.real_split)[0]


def sample_batches(subject: Subject, settings: Settings, pool: bool = False) -> Iterator[Tensor]:
    """Iterate over chunks ``(B, C, H, W)`` of :func:`sample_chunks`; a non-finite sample is an error."""
    shape, steps = subject.images.test.image_shape, settings.sample_steps
    chunks = sample_chunks(subject.model, settings.n_samples, settings.seed, shape, CHUNK, steps, pool)
    for first, x, finite in chunks:
        if not bool(finite.all()):
            raise UserError(
                f"{int((~finite).sum())} of the samples {first} to {first + len(x) - 1} are not finite; see"
                " lebm diagnose"
            )
        yield x


def check_images(x: Tensor, what: str) -> None:
    """Reject images, named ``what``, for which an extractor would return wrong features without an error.

    Their shape must be ``(B, 1 or 3, H, W)``, and their pixels finite and in [-1, 1].
    """
    if x.dim() != 4 or x.shape[1] not in (1, 3):
        raise UserError(
            f"a distance between images: {what} are not images of 1 or 3 channels but {tuple(x.shape)}"
        )
    if not bool(torch.isfinite(x).all()) or bool((x.abs() > 1 + _SLACK).any()):
        raise UserError(
            f"a distance between images: {what} must be finite and in [-1, 1]; scale them in the data module"
        )


def feature_rows(
    extractor: FeatureExtractor, images: Iterator[Tensor], what: str
) -> tuple[Tensor, Tensor | None]:
    """Return features ``(N, d)``, and logits ``(N, classes)`` or ``None``, on the host in float64."""
    features, logits = [], []
    for x in images:
        check_images(x, f"the {what}")
        some, more = extractor.with_logits(x)
        features.append(some.double().cpu())
        logits += [] if more is None else [more.double().cpu()]
    return torch.cat(features), torch.cat(logits) if logits else None


def _frechet(real: Tensor, fake: Tensor) -> Interval:
    """Return the distance of all samples, with an interval of their noise for fixed real images."""
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
    """Return the unbiased squared MMD with the kernel of KID, mean over disjoint blocks.

    Blocks are independent, so their spread gives the error of the mean.
    """
    # With few images the blocks are smaller, because an interval needs about ten blocks.
    size = max(2, min(KERNEL_SUBSET, len(real) // 10, len(fake) // 10))
    generator = torch.Generator().manual_seed(seed)
    parts = [x[torch.randperm(len(x), generator=generator)].split(size) for x in (real, fake)]
    values = [float(poly_mmd(a, b)) for a, b in zip(*parts, strict=False) if len(a) == len(b) == size]
    return mean_interval(torch.tensor(values), method=f"Student's t, {len(values)} disjoint blocks of {size}")


def kernel_name(extractor: FeatureExtractor) -> str:
    """Return the name of the kernel distance; ``"kid"`` only for the features that define FID."""
    return "kid" if extractor.figure == "fid" else extractor.figure.replace("frechet", "kernel")


def _classifier(logits: Tensor, seed: int, name: str) -> Figure:
    """Return ``exp`` of the mean divergence of the predicted classes from their mean, over ten parts."""
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed))
    parts = logits[order].chunk(CLASSIFIER_PARTS)
    means = [part.softmax(dim=1).mean(dim=0).log() for part in parts]
    pairs = zip(parts, means, strict=True)
    gains = [part.softmax(dim=1) * (part.log_softmax(dim=1) - mean) for part, mean in pairs]
    scores = torch.stack([gain.sum(dim=1).mean().exp() for gain in gains])
    interval = mean_interval(scores, method=f"Student's t over {len(parts)} parts")
    return Figure.of(name, interval, len(logits), "samples")


@torch.no_grad()
def revision_suite(subject: Subject, settings: Settings) -> SuiteResult:
    """Measure samples of the generator and their revisions, and reconstructions with and without a chain.

    Distances are means over several sets of ``n_samples`` images with separate seeds. The generated and the
    revised images of a set come from the same latents, so their difference ``.../gain`` also has an interval.
    It is positive if revision brings samples nearer to the data. A method without an image chain skips the
    suite.

    Raises:
        UserError: if samples are non-finite, cannot be compared with the data, or are too few.
    """
    if not isinstance(subject.model, Revises):
        reason = "the method has no image chain that revises its generator's samples"
        return SuiteResult({"name": "revision"}, skipped=reason)
    subject.model.eval()
    extractor, missing = settings.extractor, without_features(subject, settings)
    steps = {"generator": 0, "revised": settings.sample_steps or subject.model.chain_steps("image") or 0}
    n, split = settings.n_samples, settings.real_split
    result = SuiteResult(
        {
            "name": "networks alone and revised by their chains",
            "sets": SETS,
            "n_samples_a_set": n,
            "real_split": split,
            "features": None if missing else describe(extractor),
            "image_steps": steps,
            "seed": settings.seed,
        },
        _reconstructions(subject, settings),
        skipped=missing,
    )
    if missing:
        return result
    result.protocol |= {"features_digest": extractor.digest, "features_note": extractor.note}
    real, distances = real_features(subject, settings), defaultdict[str, list[float]](list)
    mean, covariance = real.mean(dim=0), real.T.cov()
    names = extractor.figure, kernel_name(extractor)
    for number in range(SETS):
        for kind, length in steps.items():
            own = replace(settings, seed=settings.seed + 1000 * number, sample_steps=length)
            fake, _ = feature_rows(extractor, sample_batches(subject, own), "samples")
            frechet = frechet_distance(mean, covariance, fake.mean(dim=0), fake.T.cov())
            distances[f"{names[0]}/{kind}"].append(float(frechet))
            distances[f"{names[1]}/{kind}"].append(kernel_distance(real, fake, own.seed).value)
    for name in names:
        of_sets = {kind: torch.tensor(distances[f"{name}/{kind}"], dtype=torch.float64) for kind in steps}
        of_sets["gain"] = of_sets["generator"] - of_sets["revised"]
        for kind, values in of_sets.items():
            interval = mean_interval(values, method=f"Student's t over {SETS} sets")
            result.figures.append(Figure.of(f"{name}/{kind}", interval, n, split))
    return result


def reconstructions_after(
    model: LatentModel, x: Tensor, index: Tensor, lengths: Sequence[int]
) -> dict[str, Tensor]:
    """Return :func:`~lebm.metrics.reconstruction_rows` after posterior chains of several lengths.

    ``x: (B, C, H, W)`` in [-1, 1] has the model's precision, and the row numbers ``index: (B,)`` key the
    noise as in an evaluation step, equal for all lengths. The length 0 is the inference model alone. The
    names are ``mse/steps0``, ``psnr/steps0``, ...
    """
    columns = {}
    for steps in lengths:
        reconstruction = model.reconstruct(x, steps=steps, generator=model.sample_noise("encode", index))
        for name, rows in reconstruction_rows(x, reconstruction).items():
            columns[f"{name}/steps{steps}"] = rows
    return columns


def _reconstructions(subject: Subject, settings: Settings) -> list[Figure]:
    """Return squared error, PSNR and SSIM of the test images, without and with the posterior chain."""
    model = subject.model
    revised = settings.steps or model.evaluation_steps or model.chain_steps("posterior")
    assert revised is not None  # a model that revises images also revises latents
    parts = [
        reconstructions_after(model, model.observations(batch), batch["index"], (0, revised))
        for batch in batches(subject.images.test, settings.batch_size, model.device)
    ]
    columns = {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}
    return [Figure.mean(name, column, "test") for name, column in columns.items()]
