"""Which layer of a hierarchical model encodes the class."""

from __future__ import annotations

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from rich import get_console
from rich.table import Table
from torch import Tensor

from lebm.callbacks.base import Batch, EvaluationCallback, Outputs, has_split, whole_split
from lebm.callbacks.hierarchical import layers_of
from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel
from lebm.metrics.classification import classify
from lebm.metrics.disentanglement import mutual_information_gap
from lebm.metrics.rows import RowCollector

__all__ = ["LayerClassification", "MutualInformationGap"]


def _features(model: LatentModel, x: Tensor, outputs: Outputs | None, index: Tensor) -> tuple[Tensor, str]:
    """The means of q, or posterior samples if the model has no inference model, with their name."""
    with torch.no_grad():
        inferred = model.inferred(x)
        if inferred is not None:
            return inferred.mean, "mean of q"
        if outputs is not None:
            z = outputs["z"]
        elif len(x):
            z = model.encode(x, generator=model.sample_noise("classes", index))
        else:
            z = x.new_zeros(0, model.latent_dim)
        return z, "one posterior sample"


class LayerClassification(EvaluationCallback):
    """Logs ``latent_accuracy/layer_1`` (nearest to the data), ``layer_2``, ... and ``latent_accuracy/all``
    in ``validate`` and ``test``.

    For each layer, a classifier Linear-ReLU-Linear learns from the latents of that layer in the training
    split. Its accuracy is that on the evaluated split. The latents are the means of q, or posterior samples
    of a model without an encoder. After a test it prints a table.

    Args:
        hidden: width of the classifiers.
        epochs: passes over the training split. The optimiser and this number are our choice; the paper does
            not state them.
        limit: largest number of training images. They are the first ones of the seeded permutation that the
            data module made.
        seed: of the classifiers.

    Raises:
        ValueError: for an argument out of range.
        UserError: if the latent of the model has no layers, or the data have no labels or no training split.

    Example:
        >>> from lebm.callbacks import LayerClassification
        >>> LayerClassification(epochs=5).hidden
        256
    """

    def __init__(self, hidden: int = 256, epochs: int = 20, limit: int | None = None, seed: int = 0) -> None:
        super().__init__()
        if hidden < 1 or epochs < 1 or (limit is not None and limit < 1):
            raise ValueError(
                f"hidden, epochs and limit must be at least 1, not {hidden}, {epochs} and {limit}"
            )
        self.hidden, self.epochs, self.limit, self.seed = hidden, epochs, limit, seed
        self._train, self._test = RowCollector(["z", "label"]), RowCollector(["z", "label"])
        self._latent = ""

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        layers_of(model, self)
        if trainer.state.fn == TrainerFn.FITTING:
            return
        if not has_split(trainer, "train") or "label" not in batch:
            raise UserError(
                "LayerClassification needs labels, and a data module with a train split and an"
                " evaluation_dataloader"
            )
        for rows in (self._train, self._test):
            rows.to(model.device).reset()
        for part in whole_split(trainer, model.device, "train"):
            if self.limit is not None:
                keep = part["index"] < self.limit
                part = {name: value[keep] for name, value in part.items()}
            self._add(self._train, model, part, None)

    def collect(
        self, trainer: Trainer, model: LatentModel, stage: str, outputs: Outputs, batch: Batch
    ) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            self._add(self._test, model, batch, outputs)

    def _add(self, rows: RowCollector, model: LatentModel, batch: Batch, outputs: Outputs | None) -> None:
        z, self._latent = _features(model, model.observations(batch), outputs, batch["index"])
        rows.update(index=batch["index"], label=batch["label"], z=z)

    def finish(self, trainer: Trainer, model: LatentModel, stage: str) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            return
        train, test = _labelled(self._train, "label"), _labelled(self._test, "label")
        self._train.reset()
        self._test.reset()
        slices = layers_of(model, self).layout.slices
        parts = {f"layer_{layer}": part for layer, part in enumerate(slices, start=1)} | {"all": slice(None)}
        from scipy.stats import binomtest  # slow to import

        values: dict[str, float] = {}
        count = len(test["label"])
        title = f"Linear-ReLU({self.hidden})-Linear on each layer, {count} images of the {stage} split"
        table = Table(title=title)
        for column in ("layer", "accuracy", "95 % interval"):
            table.add_column(column)
        for name, part in parts.items():
            seen, unseen = ((rows["z"][:, part], rows["label"]) for rows in (train, test))
            share = classify(seen, unseen, hidden=self.hidden, epochs=self.epochs, seed=self.seed)
            low, high = binomtest(round(share * count), count).proportion_ci(method="wilson")
            key = f"{stage}/latent_accuracy/{name}"
            values |= {key: share, f"{key}_low": low, f"{key}_high": high}
            table.add_row(name.replace("_", " "), f"{share:.4f}", f"{low:.4f} to {high:.4f}")
        self.report(model, values)
        self.protocol.update(
            latent=self._latent,
            classifier=[self.hidden],
            epochs=self.epochs,
            interval="Wilson, images only",
            seed=self.seed,
        )
        if trainer.is_global_zero and stage == "test":
            get_console().print(table)


def _labelled(collected: RowCollector, name: str) -> dict[str, Tensor]:
    """The collected rows but those with a negative number in the column ``name``, which have no label."""
    rows = collected.table()
    known = (rows[name].unsqueeze(1) >= 0).flatten(1).all(dim=1)
    if not known.any():
        raise UserError("latents are compared with labels, and a split of the data has none")
    return {column: values[known] for column, values in rows.items()}


class MutualInformationGap(EvaluationCallback):
    """Logs ``mig`` and ``mig_sup`` of the latents and the factors of variation.

    See :func:`~lebm.metrics.mutual_information_gap`. The factors are ``batch["factors"]``, ``(B, K)`` of
    ``long``. The class label is the only factor if the data have no others; ``mig_sup`` needs two factors.

    Args:
        bins: number of bins per coordinate.

    Raises:
        ValueError: if ``bins`` is below 2.
        UserError: if the batches have neither factors nor labels.

    Example:
        >>> from lebm.callbacks import MutualInformationGap
        >>> MutualInformationGap().bins
        20
    """

    def __init__(self, bins: int = 20) -> None:
        super().__init__()
        if bins < 2:
            raise ValueError(f"bins must be at least 2, not {bins}")
        self.bins = bins
        self._rows = RowCollector(["z", "factors"])

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        if "factors" not in batch and "label" not in batch:
            raise UserError("MutualInformationGap needs batches with factors or labels")
        self._rows.to(model.device).reset()

    def collect(
        self, trainer: Trainer, model: LatentModel, stage: str, outputs: Outputs, batch: Batch
    ) -> None:
        factors = batch["factors"] if "factors" in batch else batch["label"].unsqueeze(1)
        z, _ = _features(model, self.output(outputs, "x"), outputs, batch["index"])
        self._rows.update(index=batch["index"], z=z, factors=factors)

    def finish(self, trainer: Trainer, model: LatentModel, stage: str) -> None:
        rows = _labelled(self._rows, "factors")
        self._rows.reset()
        gap, supervised = mutual_information_gap(rows["z"], rows["factors"], self.bins)
        gaps = {f"{stage}/mig": gap, f"{stage}/mig_sup": supervised}
        self.report(model, {name: value for name, value in gaps.items() if value is not None})
        self.protocol.update(bins=self.bins, factors=rows["factors"].shape[1])
