"""The revision suite: the gain of dual-MCMC teaching by the chains over the networks that start them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lebm.component import describe
from lebm.estimators.latent_model import LatentModel, Revises
from lebm.evaluation.context import Settings, Subject
from lebm.evaluation.data import batches
from lebm.evaluation.image import (
    feature_rows,
    kernel_distance,
    kernel_name,
    real_features,
    sample_batches,
    without_features,
)
from lebm.evaluation.intervals import mean_interval
from lebm.evaluation.record import Figure, SuiteResult
from lebm.metrics.frechet import frechet_distance
from lebm.metrics.reconstruction import reconstruction_rows

__all__ = ["reconstructions_after", "revision_suite"]

SETS = 5


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
        return SuiteResult(
            {"name": "revision"}, skipped="the method has no image chain that revises its generator's samples"
        )
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
