"""All scores of a model in one pass over the data, and thresholds of a score."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lebm.errors import UserError
from lebm.estimators.latent_model import HasLayers, LatentModel
from lebm.estimators.prior_model import PriorModel
from lebm.metrics.anomaly import surprisal
from lebm.metrics.reconstruction import squared_error_rows
from lebm.metrics.rows import finite_rows

__all__ = ["MEANINGS", "all_scores", "combined", "combined_parts", "gathered", "score_pass", "threshold_at"]

MEANINGS = {
    "anomaly_score": (
        "the score of the method: -log p(x, z) at one posterior sample, or the image energy over its"
        " temperature"
    ),
    "log_joint": "-log p(x, z), unnormalised, at one posterior sample",
    "reconstruction": (
        "squared error of the reconstruction, mean over pixels and channels, in the [-1, 1] range"
    ),
    "prior": "-log p(z), unnormalised, at one posterior sample",
    "energy": "the energy alone at one posterior sample",
    "code": "-log p(z), unnormalised, at the mean of the encoder",
    "base": "-log of the fitted base alone, without the energy, at the mean of the encoder",
    "combined": (
        "-log p of `reconstruction` plus -log p of `prior`, where p is the share of training images with a"
        " value at least as high (Fisher's method)"
    ),
}
COMBINED = ("reconstruction", "prior")
LAYERS = 32
MEANINGS |= {
    f"llr_above_{k}": (
        f"log p(x, z) - log p(x, z'), where the lowest {k} layers of z' are drawn from the prior given the"
        " other layers"
    )
    for k in range(1, LAYERS)
}


@torch.no_grad()
def all_scores(model: LatentModel, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return all scores of a model by their names in :data:`MEANINGS`, ``(B,)`` of float64 each.

    They are high for unlikely samples, and use one posterior chain per sample. ``batch`` holds ``x``, and
    ``index``, which keys the noise.
    """
    outputs = model.test_step(batch, 0)
    x, z = outputs["x"], outputs["z"]
    error = squared_error_rows(x, outputs["reconstruction"])
    log_joint = model.log_joint(x, z)
    scores = {"anomaly_score": outputs["anomaly_score"], "log_joint": -log_joint, "reconstruction": error}
    prior = model.latent_prior
    if prior is not None:
        scores["prior"] = -prior.log_density(z)
        if not prior.is_exact:
            scores["energy"] = prior.energy(z)
    if isinstance(model, PriorModel) and model.fit_base is not None and model.encoder is not None:
        code = model.code(x)
        scores["code"] = -model.prior.log_density(code)
        scores["base"] = -model.reference.log_density(code)
    if isinstance(model, HasLayers):
        for k in range(1, min(len(model.layout), LAYERS)):
            noise = model.sample_noise(f"llr above {k}", batch["index"])
            # LLR^{>k} of Cui et al. (CVPR 2023, eq. 20), from one sample
            above = model.redraw(z, list(range(k)), generator=noise)
            scores[f"llr_above_{k}"] = log_joint - model.log_joint(x, above)
    return {name: score.double().cpu() for name, score in scores.items()}


def score_pass(model: LatentModel, data: Iterable[Mapping[str, Tensor]], what: str) -> dict[str, Tensor]:
    """Return the joined :func:`all_scores` of all batches."""
    return gathered((all_scores(model, batch) for batch in data), what)


def gathered(parts: Iterable[Mapping[str, Tensor]], what: str) -> dict[str, Tensor]:
    """Join the scores of batches, ``(B,)`` by name, to one column per name, ``(N,)``.

    Raises:
        UserError: without images, or if a score is not finite; the message begins with ``what``.
    """
    rows = list(parts)
    if not rows:
        raise UserError(f"{what}: there are no images")
    columns = {name: torch.cat([part[name] for part in rows]) for name in rows[0]}
    for name, values in columns.items():
        bad = (~finite_rows(values)).nonzero().flatten()
        if len(bad):
            advice = "lower the posterior sampler's step size, or see lebm diagnose"
            found = f"{len(bad)} non-finite values of {name}, the first at row {int(bad[0])}"
            raise UserError(f"{what}: {found}; {advice}")
    return columns


@torch.no_grad()
def combined_parts(model: LatentModel, x: Tensor, **chain: Any) -> dict[str, Tensor]:
    """Return the two parts of :func:`combined` for ``x: (B, *event)``, ``(B,)`` of float64 each.

    They are computed at one posterior sample. ``chain`` are keyword arguments of
    :meth:`~lebm.estimators.LatentModel.encode`, and the model must have a prior on latents.
    """
    assert model.latent_prior is not None
    z = model.encode(x, **chain)
    parts = squared_error_rows(x, model.decode(z)), -model.latent_prior.log_density(z)
    return {name: part.double().cpu() for name, part in zip(COMBINED, parts, strict=True)}


def combined(scores: Mapping[str, Tensor], normal: Mapping[str, Tensor]) -> Tensor:
    """Return one score of the scores ``reconstruction`` and ``prior``, ``(N,)`` in nats.

    Both are replaced by their :func:`~lebm.metrics.surprisal` among the same scores of ``normal`` images,
    ``(M,)``, because in ``log_joint`` hundreds of nats of squared errors outweigh a few nats of the prior.
    """
    first, second = (surprisal(scores[name], normal[name]) for name in COMBINED)
    return first + second


def threshold_at(scores: Tensor, rate: float) -> float:
    """Return the smallest score that at most a share ``rate`` of the scores exceeds; NaN counts as the
    highest.

    Args:
        scores: anomaly scores ``(N,)`` of normal rows outside the training data.
        rate: false-positive rate of rows above the threshold, in (0, 1).

    Raises:
        ValueError: for another rate, or without scores.

    Example:
        >>> import torch
        >>> from lebm.evaluation.scores import threshold_at
        >>> threshold_at(torch.arange(100.0), rate=0.05)
        94.0
    """
    if not 0 < rate < 1 or not len(scores):
        raise ValueError(f"the rate must be above 0 and below 1, with at least one score: {rate}")
    ordered = scores.double().nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf).sort().values
    above = int(rate * len(ordered) + 1e-9)  # 0.05 * 100 is below 5 in floating point
    return float(ordered[len(ordered) - 1 - above])
