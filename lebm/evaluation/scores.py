"""Every score of a model in one pass over the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lebm.errors import UserError
from lebm.metrics.rows import finite_rows

__all__ = ["MEANINGS", "all_scores", "score_pass"]

MEANINGS = {
    "anomaly_score": "the method's own: -log p(x, z) at one posterior sample, or the image energy over its temperature",
    "log_joint": "-log p(x, z), unnormalised, at one posterior sample",
    "reconstruction": "squared error of the reconstruction, mean over pixels and channels, in the [-1, 1] range",
    "prior": "-log p(z), unnormalised, at one posterior sample",
    "energy": "the energy alone at one posterior sample",
    "llr": "log p(x, z) - log p(x, z'), z' with its lower layers drawn anew from the prior given the others",
}


@torch.no_grad()
def all_scores(model: Any, batch: Mapping[str, Tensor], llr_above: int | None = None) -> dict[str, Tensor]:
    """The scores that a model can give, high for what it finds unlikely, from one posterior chain a sample.

    Args:
        model: a :class:`~lebm.estimators.LatentEstimator`.
        batch: ``x`` and ``index``, which keys the noise.
        llr_above: number of layers that the log-likelihood ratio draws anew, in models of several layers; half of them if ``None``.

    Returns:
        Names of :data:`MEANINGS`, each ``(B,)`` of float64.
    """
    outputs = model.test_step(batch, 0)
    x, z = outputs["x"], outputs["z"]
    error = (x.double() - outputs["reconstruction"].double()).flatten(1).square().mean(dim=1)
    log_joint = model.log_joint(x, z)
    scores = {"anomaly_score": outputs["anomaly_score"], "log_joint": -log_joint, "reconstruction": error}
    prior = getattr(model, "prior", None)
    if prior is not None and not prior.is_exact:
        scores["prior"], scores["energy"] = -prior.log_density(z), prior.energy(z)
    layers = len(model.layout.sizes) if hasattr(model, "log_joint_above") else 1
    if layers > 1:
        noise = model.sample_noise("llr", batch["index"])
        scores["llr"] = log_joint - model.log_joint_above(x, z, llr_above or layers // 2, generator=noise)
    return {name: score.double().cpu() for name, score in scores.items()}


def score_pass(model: Any, data: Iterable[Mapping[str, Tensor]], what: str) -> dict[str, Tensor]:
    """:func:`all_scores` of all batches, ``(N,)`` each, with ``label`` beside them.

    Raises:
        UserError: if a score is not finite, naming how many and the first.
    """
    rows: dict[str, list[Tensor]] = {}
    for batch in data:
        for name, values in {**all_scores(model, batch), "label": batch["label"].cpu()}.items():
            rows.setdefault(name, []).append(values)
    if not rows:
        raise UserError(f"{what}: there are no images")
    columns = {name: torch.cat(parts) for name, parts in rows.items()}
    for name, values in columns.items():
        bad = (~finite_rows(values)).nonzero().flatten()
        if len(bad):
            advice = "lower the posterior sampler's step size, or see lebm diagnose"
            raise UserError(f"{what}: {len(bad)} non-finite values of {name}, the first at row {int(bad[0])}; {advice}")
    return columns
