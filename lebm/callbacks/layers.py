"""What the layers of a hierarchical model encode, measured after training, and two stress tests."""

from __future__ import annotations

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lebm.callbacks.base import Batch, EvaluationCallback, Outputs, has_split, whole_split
from lebm.callbacks.hierarchical import layers_of
from lebm.callbacks.publish import publish_image
from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel
from lebm.metrics.classification import classify, latent_attack, layer_divergences, mutual_information_gap
from lebm.metrics.rows import RowCollector
from lebm.models.encoders import DiagonalGaussian
from lebm.models.priors import Prior
from lebm.plots.grids import image_grid
from lebm.samplers.noise import Noise

__all__ = ["LatentAttack", "LayerClassification", "LongChain", "MutualInformationGap"]


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
    of a model without an encoder.

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
        for name, part in parts.items():
            seen, unseen = ((rows["z"][:, part], rows["label"]) for rows in (train, test))
            share = classify(seen, unseen, hidden=self.hidden, epochs=self.epochs, seed=self.seed)
            low, high = binomtest(round(share * count), count).proportion_ci(method="wilson")
            key = f"{stage}/latent_accuracy/{name}"
            values |= {key: share, f"{key}_low": low, f"{key}_high": high}
        self.report(model, values)
        self.protocol.update(
            latent=self._latent,
            classifier=[self.hidden],
            epochs=self.epochs,
            interval="Wilson, images only",
            seed=self.seed,
        )


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


class LatentAttack(EvaluationCallback):
    """Attacks the encoder, layer by layer, on images of the first batch.

    An attack changes an image a little, until the encoder infers the latents of the next image, its target;
    see :func:`~lebm.metrics.classification.latent_attack`. ``attack/layer_1``, ... is
    ``KL(q(z_i | attacked) || q(z_i | target))`` of the attacked layer, in nats. ``attack/layer_1_before``,
    ... is the same for the unchanged image. If the two are close, the attack has failed. The picture
    ``images/attack`` has a row of images and a row of targets. Then come, for each layer, the attacked images
    and their reconstructions. This form of the attack is our choice.

    Args:
        n: number of images, at least 2.
        radius: largest change of a pixel, in the units of the [-1, 1] range.
        steps: gradient steps of the attack.

    Raises:
        ValueError: for an argument out of range.
        UserError: if the latent of the model has no layers, or the model has no encoder.

    Example:
        >>> from lebm.callbacks import LatentAttack
        >>> LatentAttack(radius=0.1).steps
        50
    """

    def __init__(self, n: int = 32, radius: float = 0.2, steps: int = 50) -> None:
        super().__init__()
        if n < 2 or not radius > 0 or steps < 1:
            raise ValueError(
                f"needs n of at least 2, a positive radius and at least 1 step, not {n}, {radius} and {steps}"
            )
        self.n, self.radius, self.steps = n, radius, steps
        self._due = False

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        layers_of(model, self)
        if model.inferred(model.observations(batch)) is None:
            raise UserError("LatentAttack attacks an encoder, and this model has none")
        self._due = trainer.state.fn != TrainerFn.FITTING

    def collect(
        self, trainer: Trainer, model: LatentModel, stage: str, outputs: Outputs, batch: Batch
    ) -> None:
        x = self.output(outputs, "x")[: self.n].clone()
        if not self._due or len(x) < 2:
            return
        self._due = False
        target, layout = x.roll(1, dims=0), layers_of(model, self).layout

        def infer(x: Tensor) -> DiagonalGaussian:
            inferred = model.inferred(x)
            assert inferred is not None  # begin has checked this
            return inferred

        with torch.no_grad():
            wanted = infer(target)
            before = layer_divergences(infer(x), wanted, layout).mean(dim=0)
        rows, values = [x, target], dict[str, float]()
        for layer in range(len(layout)):
            attacked = latent_attack(infer, x, target, layout, layer, radius=self.radius, steps=self.steps)
            with torch.no_grad():
                after = layer_divergences(infer(attacked), wanted, layout).mean(dim=0)
                rows += [attacked, model.decode(infer(attacked).mean)]
            name = f"{stage}/attack/layer_{layer + 1}"
            values |= {name: float(after[layer]), f"{name}_before": float(before[layer])}
        self.report(model, values)
        self.protocol.update(
            images=len(x),
            radius=self.radius,
            steps=self.steps,
            attack="sign gradient, projected onto the box",
        )
        publish_image(trainer, "attack", image_grid(torch.cat([row[:12] for row in rows]), min(12, len(x))))


class LongChain(EvaluationCallback):
    """Shows samples at several lengths of *one* prior chain, also beyond the length in training.

    A chain that leaves the region of plausible samples shows here. In ``images/long_chain`` each row is a
    chain and each column a length. ``long_chain/rms`` is the root mean square of the latents. For a model
    with a prior, ``long_chain/log_density`` is the unnormalised log-density of the prior. Both are measured
    at the model's default length and, with ``_end`` in the name, at the last length. This works for every
    method whose ``sample_latent`` runs a chain.

    Args:
        lengths: numbers of transitions, each a multiple of ten, in rising order. A longer chain begins with
            the transitions of the shorter ones.
        n: number of chains.
        seed: of the noise of the chains.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> from lebm.callbacks import LongChain
        >>> LongChain(lengths=(0, 60, 600)).n
        64
    """

    def __init__(
        self, lengths: tuple[int, ...] = (0, 60, 250, 500, 1000, 2500), n: int = 64, seed: int = 0
    ) -> None:
        super().__init__()
        rising = sorted(lengths) == list(lengths)
        if n < 1 or not lengths or not rising or any(length < 0 or length % 10 for length in lengths):
            raise ValueError(
                f"needs at least one chain, and lengths that rise in multiples of ten, not {n} and"
                f" {list(lengths)}"
            )
        self.lengths, self.n, self.seed = tuple(lengths), n, seed

    def wanted(self, trainer: Trainer, stage: str) -> bool:
        return trainer.state.fn != TrainerFn.FITTING

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        # Every process draws the same chains, so the values agree.
        def drawn(steps: int | None) -> Tensor:
            return model.sample_latent(self.n, steps=steps, generator=Noise.shards(self.seed, "long chain"))

        states, own = {length: drawn(length) for length in self.lengths}, drawn(None)
        values = {
            f"{stage}/long_chain/{name}{suffix}": value
            for suffix, z in (("", own), ("_end", states[self.lengths[-1]]))
            for name, value in _measured(z, model.latent_prior).items()
        }
        self.report(model, values)
        self.protocol.update(lengths=list(self.lengths), chains=self.n, seed=self.seed)
        rows = torch.stack([model.decode(z[:10]) for z in states.values()], dim=1).flatten(0, 1)
        publish_image(trainer, "long_chain", image_grid(rows, len(states)))


@torch.no_grad()
def _measured(z: Tensor, prior: Prior | None) -> dict[str, float]:
    values = {"rms": float(z.double().square().mean().sqrt())}
    return values if prior is None else values | {"log_density": float(prior.log_density(z).mean())}
