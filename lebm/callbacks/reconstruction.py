"""Reconstructions of data: a picture and an error."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torchmetrics import Metric

from lebm.callbacks.base import Batch, EvaluationCallback, Outputs, double_mean
from lebm.callbacks.publish import publish_image
from lebm.data.splits import spread_rows
from lebm.estimators.latent_model import LatentModel
from lebm.metrics.reconstruction import squared_error_rows
from lebm.metrics.rows import NonFinite, RowCollector, finite_rows
from lebm.plots.grids import pair_grid

__all__ = ["ReconstructionError", "ReconstructionGrid"]


class ReconstructionGrid(EvaluationCallback):
    """Shows images of the validation or test data above their reconstructions, in ``images/reconstructions``.

    The images are a seeded choice that is spread over the classes, and the same in every pass. Data loaders
    that do not tell their data set give the first images of their first batch.

    Args:
        n: number of images; fewer are shown if there are fewer.
        columns: images per row; a row of data is followed by the row of its reconstructions.
        seed: seed of the choice.

    Example:
        >>> from lebm.callbacks import ReconstructionGrid
        >>> ReconstructionGrid(n=8).columns
        8
    """

    def __init__(self, n: int = 16, columns: int = 8, seed: int = 0) -> None:
        super().__init__()
        if n < 1 or columns < 1:
            raise ValueError(f"n and columns must be at least 1, not {n} and {columns}")
        self.n = n
        self.columns = columns
        self.seed = seed
        self._rows: RowCollector | None = None
        self._chosen: Tensor | None = None

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        self._rows = RowCollector(["x", "reconstruction"]).to(model.device)
        chosen = self._choice(trainer, stage)
        self._chosen = None if chosen is None else chosen.to(model.device)

    def _choice(self, trainer: Trainer, stage: str) -> Tensor | None:
        """The rows to show, or ``None`` if the data loader does not tell what it holds."""
        loaders = trainer.val_dataloaders if stage == "val" else trainer.test_dataloaders
        batches = trainer.num_val_batches if stage == "val" else trainer.num_test_batches
        loader: Any = loaders[0] if isinstance(loaders, list) else loaders
        dataset: Any = getattr(loader, "dataset", None)
        size = getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
        if not hasattr(dataset, "__len__") or size is None:
            return None
        rows = len(dataset)
        if isinstance(batches, list) and batches[0] < len(loader):
            rows = min(rows, int(batches[0]) * size)  # limit_val_batches and the like end the pass there
        labels: Any = getattr(dataset, "labels", None)
        known = isinstance(labels, Tensor) and labels.shape == (len(dataset),)
        classes = labels[:rows].cpu().numpy() if known else None
        return torch.from_numpy(spread_rows(classes, rows, self.n, self.seed))

    def collect(
        self, trainer: Trainer, model: LatentModel, stage: str, outputs: Outputs, batch: Batch
    ) -> None:
        if self._rows is None:
            return
        x, reconstruction = self.output(outputs, "x"), self.output(outputs, "reconstruction")
        index = batch["index"]
        if self._chosen is None:  # each process's first n rows of one batch hold the batch's first n
            keep = torch.arange(len(index), device=index.device) < self.n
        else:
            keep = torch.isin(index, self._chosen)
        self._rows.update(index=index[keep], x=x[keep], reconstruction=reconstruction[keep])
        if self._chosen is None:
            self._publish(trainer)

    def finish(self, trainer: Trainer, model: LatentModel, stage: str) -> None:
        if self._rows is not None:
            self._publish(trainer)

    def _publish(self, trainer: Trainer) -> None:
        assert self._rows is not None
        rows = self._rows.table()
        self._rows = None
        order = torch.arange(len(rows["index"]))[: self.n]
        if self._chosen is not None:
            found = {int(row): place for place, row in enumerate(rows["index"])}
            shown = [found[row] for row in self._chosen.tolist() if row in found]
            order = torch.tensor(shown, dtype=torch.long)
        if len(order):
            order = order.to(rows["x"].device)
            grid = pair_grid(rows["x"][order], rows["reconstruction"][order], self.columns)
            publish_image(trainer, "reconstructions", grid)


class ReconstructionError(EvaluationCallback):
    """Logs ``val/reconstruction_mse`` and ``test/reconstruction_mse``.

    It is the squared error of the reconstructions that the model's evaluation step returned, in the [-1, 1]
    range. The mean over pixels and channels comes first, then the mean over samples, in double precision;
    this is the convention of the papers that report it. Divide by 4 for the [0, 1] range. Samples of a
    held-out label do not count, because the model was not trained to reconstruct them.

    Raises:
        UserError: if a reconstruction is not finite, at the end of the pass.

    Example:
        >>> from lebm.callbacks import ReconstructionError
        >>> ReconstructionError().figures
        {}
    """

    _mean: Metric

    def __init__(self) -> None:
        super().__init__()
        self._bad = NonFinite()

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        self._mean = double_mean(model.device)
        self._bad.to(model.device).reset()

    def collect(
        self, trainer: Trainer, model: LatentModel, stage: str, outputs: Outputs, batch: Batch
    ) -> None:
        x, reconstruction = self.output(outputs, "x"), self.output(outputs, "reconstruction")
        index = batch["index"]
        if "anomaly" in batch:
            normal = ~batch["anomaly"]
            x, reconstruction, index = x[normal], reconstruction[normal], index[normal]
        error = squared_error_rows(x, reconstruction)
        finite = finite_rows(error)
        self._bad.update(finite, index)
        self._mean.update(error[finite])

    def finish(self, trainer: Trainer, model: LatentModel, stage: str) -> None:
        self._bad.refuse(
            f"{stage} reconstructions",
            "look at mcmc/posterior/nonfinite and lower the posterior sampler's step size",
        )
        value = float(self._mean.compute())
        if value == value:  # NaN without any sample
            self.report(model, {f"{stage}/reconstruction_mse": value})
        self.protocol.update(
            range=[-1, 1],
            mean_over="pixels, channels and normal samples",
            chain_settings=model.chain_settings,
        )
