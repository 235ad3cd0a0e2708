"""Pictures of what each layer of a hierarchical model encodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torchmetrics import Metric

from lebm.callbacks.base import Batch, EvaluationCallback, Outputs, double_mean, due
from lebm.callbacks.publish import publish_image
from lebm.errors import UserError
from lebm.estimators.latent_model import HasLayers, LatentModel
from lebm.metrics.reconstruction import squared_error_rows
from lebm.models.hierarchical import LatentLayout
from lebm.plots import decoded, image_grid, most_visible, swept
from lebm.samplers.noise import Noise

__all__ = ["HierarchicalSamples", "LatentTraversal", "LayerReconstruction", "layers_of"]

Kind = Literal["substitution", "conditional"]


def layers_of(model: LatentModel, callback: EvaluationCallback) -> HasLayers:
    """The model itself, as a model with layers.

    Raises:
        UserError: if the latent of the model has no layers.
    """
    if not isinstance(model, HasLayers):
        raise UserError(
            f"{type(callback).__name__} looks at the layers of a hierarchical model, which"
            f" {type(model).__name__} does not have"
        )
    return model


class HierarchicalSamples(EvaluationCallback):
    """Shows one grid per layer: samples in the first column, and beside them the same samples with another
    draw of that layer.

    A row changes only by what the layer encodes. Layer 1 is nearest to the data. In
    ``images/layer_1_substitution`` the layer comes from other draws of the prior, as in the released code.
    That ignores the dependence between the layers. In ``images/layer_1_conditional`` the layer is drawn from
    the prior *given* the other layers, by a chain that moves only this layer.

    Args:
        rows: samples, one per row; the released grid has one row.
        columns: draws of the layer.
        kinds: the grids to draw, ``substitution``, ``conditional`` or both.
        every_n_epochs: epochs between pictures in training; by default only ``validate`` and ``test`` draw.
        steps: length of the chains; the default of the prior sampler if ``None``.
        seed: of the noise of the chains.

    Raises:
        ValueError: for an argument out of range.
        UserError: if the latent of the model has no layers.

    Example:
        >>> from lebm.callbacks import HierarchicalSamples
        >>> HierarchicalSamples(rows=4).kinds
        ['substitution', 'conditional']
    """

    def __init__(
        self,
        rows: int = 8,
        columns: int = 10,
        kinds: Sequence[Kind] = ("substitution", "conditional"),
        every_n_epochs: int | None = None,
        steps: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(rows, columns) < 1 or (every_n_epochs is not None and every_n_epochs < 1):
            raise ValueError(
                f"rows, columns and every_n_epochs must be at least 1, not {rows}, {columns} and"
                f" {every_n_epochs}"
            )
        if not kinds or any(kind not in ("substitution", "conditional") for kind in kinds):
            raise ValueError(f"kinds must be of substitution and conditional, not {list(kinds)}")
        self.rows, self.columns, self.kinds = rows, columns, list(kinds)
        self.every_n_epochs = every_n_epochs
        self.steps = steps
        self.seed = seed

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        layers = layers_of(model, self)
        if not due(trainer, self.every_n_epochs) or not trainer.is_global_zero:
            return
        noise = Noise.shards(self.seed, "hierarchical")
        codes = model.sample_latent(self.rows + self.columns, steps=self.steps, generator=noise)
        for layer in range(len(layers.layout)):
            for kind in self.kinds:
                z = self.codes(layers, codes, layer, kind)
                picture = image_grid(model.decode(z.flatten(0, 1)), self.columns + 1)
                publish_image(trainer, f"layer_{layer + 1}_{kind}", picture)

    def codes(self, model: HasLayers, codes: Tensor, layer: int, kind: str) -> Tensor:
        """Latents of a grid, ``(rows, 1 + columns, d)``. The first column holds the first of ``codes``."""
        own, others = codes.split([self.rows, self.columns])
        changed = own.unsqueeze(1).expand(-1, self.columns, -1)
        if kind == "substitution":
            mask = model.layout.mask([layer], codes.device)
            changed = torch.where(mask, others.unsqueeze(0).expand_as(changed), changed)
        else:
            noise = Noise.shards(self.seed, "hierarchical", layer)
            redrawn = model.redraw(changed.flatten(0, 1), [layer], steps=self.steps, generator=noise)
            changed = redrawn.reshape(changed.shape)
        return torch.cat([own.unsqueeze(1), changed], dim=1)


class LayerReconstruction(EvaluationCallback):
    """Shows how much of an image the upper layers encode.

    Of a reconstruction, the lowest k layers come from the prior given the layers above, and the other layers
    from the posterior. The picture ``images/layer_reconstructions`` has a row of data and a row for each k,
    from k = 0 (all layers from the posterior). ``reconstruction_mse_above_k`` is the squared error for k, in
    the [-1, 1] range, over all images of a ``validate`` or ``test`` pass.

    Args:
        n: images in the picture, from the first batch.
        steps: length of the prior's chains; the default of the prior sampler if ``None``.

    Raises:
        ValueError: if ``n`` is below 1.
        UserError: if the latent of the model has no layers.

    Example:
        >>> from lebm.callbacks import LayerReconstruction
        >>> LayerReconstruction(n=6).n
        6
    """

    def __init__(self, n: int = 12, steps: int | None = None) -> None:
        super().__init__()
        if n < 1:
            raise ValueError(f"n must be at least 1, not {n}")
        self.n = n
        self.steps = steps
        self._first = True
        self._errors: list[Metric] = []

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        layers = len(layers_of(model, self).layout)
        self._errors = [double_mean(model.device, "warn") for _ in range(layers)]
        self._first = True

    def collect(
        self, trainer: Trainer, model: LatentModel, stage: str, outputs: Outputs, batch: Batch
    ) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not self._first:
            return
        x, z, layers = self.output(outputs, "x"), self.output(outputs, "z"), layers_of(model, self)
        noise = model.sample_noise("layers", batch["index"]) if len(x) else None
        shown = [x]
        for k, error in enumerate(self._errors):
            mean = x
            if len(x):
                mean = model.decode(layers.redraw(z, list(range(k)), steps=self.steps, generator=noise))
            error.update(squared_error_rows(x, mean))
            shown.append(mean)
        if self._first and len(x):
            rows = torch.cat([part[: self.n] for part in shown])
            publish_image(trainer, "layer_reconstructions", image_grid(rows, min(self.n, len(x))))
        self._first = False

    def finish(self, trainer: Trainer, model: LatentModel, stage: str) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            name = f"{stage}/reconstruction_mse_above"
            errors = {f"{name}_{k}": float(error.compute()) for k, error in enumerate(self._errors)}
            self.report(model, errors)
            self.protocol.update(
                range=[-1, 1], lower_layers="one draw of the prior given the layers above", steps=self.steps
            )


class LatentTraversal(EvaluationCallback):
    """Shows what single coordinates of the latent change, in ``images/traversal``.

    It encodes one image. Each row of the picture belongs to one coordinate, those of the bottom layer first.
    Along the row the coordinate goes from low to high. This works for every model, with layers or without.

    Args:
        extent: subtracted from the coordinate at the left end, and added at the right end.
        columns: number of values of a coordinate.
        rows: largest number of coordinates; of every layer, those that change the image most.
        image: number of the encoded image in the first batch.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> from lebm.callbacks import LatentTraversal
        >>> LatentTraversal(extent=3.0).columns
        11
    """

    def __init__(self, extent: float = 2.5, columns: int = 11, rows: int = 24, image: int = 0) -> None:
        super().__init__()
        if not extent > 0 or columns < 2 or rows < 1 or image < 0:
            raise ValueError(
                f"needs extent > 0, columns >= 2, rows >= 1, image >= 0, not {extent}, {columns}, {rows} and"
                f" {image}"
            )
        self.extent, self.columns, self.rows, self.image = extent, columns, rows, image
        self._open_picture = False

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        self._open_picture = True

    def collect(
        self, trainer: Trainer, model: LatentModel, stage: str, outputs: Outputs, batch: Batch
    ) -> None:
        z = self.output(outputs, "z")
        if not self._open_picture or not len(z):
            return
        self._open_picture = False
        code = z[min(self.image, len(z) - 1)]
        layout = model.layout if isinstance(model, HasLayers) else LatentLayout([len(code)])
        share = max(1, self.rows // len(layout))
        layers = [range(part.start, part.stop) for part in layout.slices]
        shown = [
            coordinate
            for layer in layers
            for coordinate in most_visible(model.decode, code, self.extent, share, among=layer)
        ]
        ways = swept(code, shown[: self.rows], self.extent, self.columns)
        publish_image(
            trainer, "traversal", image_grid(decoded(model.decode, ways.flatten(0, 1)), self.columns)
        )
