"""Evaluation of the layers of a hierarchical model: pictures, errors, classifiers, and an attack.

All callbacks raise a UserError for a model whose latent has no layers. Layer 1 is nearest to the data.
"""

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torchmetrics import Metric

from lebm.callbacks.base import Batch, EvaluationCallback, double_mean, fitting, whole_split
from lebm.callbacks.publish import publish_image
from lebm.errors import UserError, at_least
from lebm.estimators.latent_model import HasLayers, LatentModel
from lebm.metrics.classification import classify, latent_attack
from lebm.metrics.reconstruction import squared_error_rows
from lebm.metrics.rows import RowCollector
from lebm.plots.grids import image_grid
from lebm.samplers.noise import Noise


class NeedsLayers:
    """Mixin of the callbacks for models with layers."""

    def check(self, trainer: Trainer, model: Any, batch: Batch) -> None:
        if not isinstance(model, HasLayers):
            raise UserError(
                f"{type(self).__name__} requires a model with several layers,"
                f" but {type(model).__name__} has none"
            )


class HierarchicalSamples(NeedsLayers, EvaluationCallback):
    """Grids of samples, one per layer, each sample beside the same sample with that layer drawn again.

    In ``images/layer_1_substitution`` the layer comes from other prior samples, as in the released code,
    which ignores the dependence between layers. In ``images/layer_1_conditional`` the layer is drawn from the
    prior *given* the other layers, by a chain that moves only this layer.

    Args:
        rows: number of samples (released: 1).
        columns: number of alternatives of the layer.
        steps: length of the chains; the default of the prior sampler if ``None``.

    Example:
        >>> from lebm.callbacks import HierarchicalSamples
        >>> HierarchicalSamples(rows=4).columns
        10
    """

    every_n_epochs = None

    def __init__(self, rows: int = 8, columns: int = 10, steps: int | None = None) -> None:
        at_least(1, rows=rows, columns=columns)
        self.rows, self.columns, self.steps = rows, columns, steps

    def begin(self, trainer: Trainer, model: Any, stage: str, batch: Batch) -> None:
        if not trainer.is_global_zero:
            return
        noise = Noise.shards(0, "hierarchical")
        codes = model.sample_latent(self.rows + self.columns, steps=self.steps, generator=noise)
        for layer in range(len(model.layout)):
            for kind, z in self.codes(model, codes, layer).items():
                picture = image_grid(model.decode(z.flatten(0, 1)), self.columns + 1)
                publish_image(trainer, f"layer_{layer + 1}_{kind}", picture)

    def codes(self, model: HasLayers, codes: Tensor, layer: int) -> dict[str, Tensor]:
        """Return the latents of both grids, ``(rows, 1 + columns, d)``, with the first codes in column 0."""
        own, others = codes[: self.rows, None], codes[self.rows :]
        repeated = own.expand(-1, self.columns, -1)
        noise = Noise.shards(0, "hierarchical", layer)
        redrawn = model.redraw(repeated.flatten(0, 1), [layer], steps=self.steps, generator=noise)
        changed = {
            "substitution": torch.where(model.layout.mask([layer], codes.device), others, repeated),
            "conditional": redrawn.reshape(repeated.shape),
        }
        return {kind: torch.cat([own, z], dim=1) for kind, z in changed.items()}


class LayerReconstruction(NeedsLayers, EvaluationCallback):
    """Reconstructions from the upper layers alone, which show the content that these layers encode.

    The lowest k layers come from the prior given the layers above, and the other layers from the posterior.
    ``images/layer_reconstructions`` has a row of data and a row for each k from 0, and
    ``reconstruction_mse_above_k`` is the squared error for k, in the [-1, 1] range, over all images of a
    ``validate`` or ``test`` pass.

    Args:
        n: number of images in the picture, from the first batch.
        steps: length of the prior's chains; the default of the prior sampler if ``None``.

    Example:
        >>> from lebm.callbacks import LayerReconstruction
        >>> LayerReconstruction(n=6).n
        6
    """

    def __init__(self, n: int = 12, steps: int | None = None) -> None:
        at_least(1, n=n)
        self.n, self.steps = n, steps
        self._errors: list[Metric] = []

    def begin(self, trainer: Trainer, model: Any, stage: str, batch: Batch) -> None:
        self._errors = [double_mean(model.device, "warn") for _ in range(len(model.layout))]

    def collect(self, trainer: Trainer, model: Any, stage: str, outputs: Batch, batch: Batch) -> None:
        x, z = self.output(outputs, "x"), self.output(outputs, "z")
        if not len(x) or (fitting(trainer) and not self.first_batch):
            return
        noise, shown = model.sample_noise("layers", batch["index"]), [x]
        for k, error in enumerate(self._errors):
            mean = model.decode(model.redraw(z, list(range(k)), steps=self.steps, generator=noise))
            error.update(squared_error_rows(x, mean))
            shown.append(mean)
        if self.first_batch:
            rows = torch.cat([part[: self.n] for part in shown])
            publish_image(trainer, "layer_reconstructions", image_grid(rows, min(self.n, len(x))))

    def finish(self, trainer: Trainer, model: LatentModel, stage: str) -> None:
        if not fitting(trainer):
            name = f"{stage}/reconstruction_mse_above"
            values = {f"{name}_{k}": float(error.compute()) for k, error in enumerate(self._errors)}
            self.report(model, values)
            lower = "one draw of the prior given the layers above"
            self.protocol.update(range=[-1, 1], lower_layers=lower, steps=self.steps)


def _labelled(collected: RowCollector) -> tuple[Tensor, Tensor]:
    """Return latents and labels of the rows with a label, which is not negative."""
    rows = collected.table()
    known = rows["label"] >= 0
    if not known.any():
        raise UserError("LayerClassification requires labels, but a split of the data has none")
    return rows["z"][known], rows["label"][known]


class LayerClassification(NeedsLayers, EvaluationCallback):
    """Accuracy of classifiers of the layers, ``latent_accuracy/layer_1``, ..., ``latent_accuracy/all``.

    In ``validate`` and ``test``, a classifier of each layer (:func:`~lebm.metrics.classify`) is trained on
    latents of the training split and tested on the evaluated split. Latents are the means of q, or posterior
    samples of a model without an encoder.

    Args:
        hidden: width of the classifiers.
        epochs: passes over the training split; like the optimiser not stated in the paper.
        limit: largest number of training images, by the seeded permutation of the data module.
        seed: seed of the classifiers.

    Raises:
        UserError: if the data have no labels or no training split.

    Example:
        >>> from lebm.callbacks import LayerClassification
        >>> LayerClassification(epochs=5).hidden
        256
    """

    every_n_epochs = None

    def __init__(self, hidden: int = 256, epochs: int = 20, limit: int | None = None, seed: int = 0) -> None:
        at_least(1, hidden=hidden, epochs=epochs, limit=limit)
        self.hidden, self.epochs, self.limit, self.seed = hidden, epochs, limit, seed
        self._train, self._test = RowCollector(["z", "label"]), RowCollector(["z", "label"])

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        if "label" not in batch:
            raise UserError("LayerClassification needs data with labels")
        for part in whole_split(trainer, model.device, "train", "LayerClassification"):
            if self.limit is not None:
                keep = part["index"] < self.limit
                part = {name: value[keep] for name, value in part.items()}
            self._add(self._train, model, part, None)

    def collect(self, trainer: Trainer, model: LatentModel, stage: str, outputs: Batch, batch: Batch) -> None:
        self._add(self._test, model, batch, outputs)

    def _add(self, rows: RowCollector, model: LatentModel, batch: Batch, outputs: Batch | None) -> None:
        x, index = model.observations(batch), batch["index"]
        encoder = getattr(model, "encoder", None)
        if encoder is not None:
            z = encoder(x).mean
        elif outputs is not None:
            z = outputs["z"]
        elif len(x):
            z = model.encode(x, generator=model.sample_noise("classes", index))
        else:
            z = x.new_zeros(0, model.latent_dim)
        rows.update(index=index, label=batch["label"], z=z)

    def finish(self, trainer: Trainer, model: Any, stage: str) -> None:
        from scipy.stats import binomtest  # slow import

        (z, labels), (unseen, truth) = _labelled(self._train), _labelled(self._test)
        layers = enumerate(model.layout.slices, start=1)
        parts = {f"layer_{layer}": part for layer, part in layers} | {"all": slice(None)}
        values: dict[str, float] = {}
        settings = {"epochs": self.epochs, "seed": self.seed}
        for name, part in parts.items():
            seen, tested = (z[:, part], labels), (unseen[:, part], truth)
            share = classify(seen, tested, hidden=self.hidden, **settings)
            low, high = binomtest(round(share * len(truth)), len(truth)).proportion_ci(method="wilson")
            key = f"{stage}/latent_accuracy/{name}"
            values |= {key: share, f"{key}_low": low, f"{key}_high": high}
        self.report(model, values)
        latent = "one posterior sample" if getattr(model, "encoder", None) is None else "mean of q"
        interval, classifier = "Wilson, images only", [self.hidden]
        self.protocol.update(latent=latent, interval=interval, classifier=classifier, **settings)


class LatentAttack(NeedsLayers, EvaluationCallback):
    """Attack on the encoder, layer by layer, on images of the first batch.

    An attack changes an image a little, so that the encoder infers the latents of the next image, its target;
    see :func:`~lebm.metrics.classification.latent_attack`. ``attack/layer_1``, ... is ``KL(q(z_i | attacked)
    || q(z_i | target))`` of the attacked layer, in nats, and ``attack/layer_1_before``, ... the divergence
    for the unchanged image; an attack has failed if both are close. The rows of ``images/attack`` are images,
    targets and, for each layer, the attacked images and their reconstructions. The form of the attack is not
    from a paper.

    Args:
        n: number of images, at least 2.
        radius: largest change of a pixel, in the [-1, 1] range, positive.
        steps: number of gradient steps.

    Raises:
        UserError: if the model has no encoder.

    Example:
        >>> from lebm.callbacks import LatentAttack
        >>> LatentAttack(radius=0.1).steps
        50
    """

    every_n_epochs = None

    def __init__(self, n: int = 32, radius: float = 0.2, steps: int = 50) -> None:
        at_least(2, n=n)
        at_least(1, steps=steps)
        self.n, self.radius, self.steps = n, radius, steps

    def check(self, trainer: Trainer, model: Any, batch: Batch) -> None:
        super().check(trainer, model, batch)
        if getattr(model, "encoder", None) is None:
            raise UserError("LatentAttack requires a model with an encoder")

    def collect(self, trainer: Trainer, model: Any, stage: str, outputs: Batch, batch: Batch) -> None:
        x = self.output(outputs, "x")[: self.n].clone()
        if not self.first_batch or len(x) < 2:
            return
        target, layout, infer = x.roll(1, dims=0), model.layout, model.encoder
        with torch.no_grad():
            wanted = infer(target)
            before = layout.sums(infer(x).divergences(wanted)).mean(dim=0)
        rows, values = [x, target], dict[str, float]()
        for layer in range(len(layout)):
            attacked = latent_attack(infer, x, target, layout, layer, radius=self.radius, steps=self.steps)
            with torch.no_grad():
                after = layout.sums(infer(attacked).divergences(wanted)).mean(dim=0)
                rows += [attacked, model.decode(infer(attacked).mean)]
            name = f"{stage}/attack/layer_{layer + 1}"
            values |= {name: float(after[layer]), f"{name}_before": float(before[layer])}
        self.report(model, values)
        attack = "sign gradient, projected onto the box"
        self.protocol.update(images=len(x), radius=self.radius, steps=self.steps, attack=attack)
        publish_image(trainer, "attack", image_grid(torch.cat([row[:12] for row in rows]), min(12, len(x))))
