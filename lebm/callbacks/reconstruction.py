"""Pictures and errors of reconstructions of data."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torchmetrics import Metric

from lebm.callbacks.base import LOWER_STEP, Batch, EvaluationCallback, double_mean
from lebm.callbacks.publish import publish_image
from lebm.data.splits import spread_rows
from lebm.errors import at_least
from lebm.estimators.latent_model import LatentModel
from lebm.evaluation.image import reconstructions_after
from lebm.metrics.reconstruction import SSIM_WINDOW, squared_error_rows
from lebm.metrics.rows import NonFinite, RowCollector, finite_rows
from lebm.plots.grids import pair_grid


class ReconstructionGrid(EvaluationCallback):
    """Picture ``images/reconstructions`` of validation or test images above their reconstructions.

    The images are a seeded selection over all classes, equal in every pass. For data loaders without a known
    data set they are the first images of the first batch.

    Args:
        n: largest number of images.
        columns: number of images per row; each row of data is followed by its reconstructions.
        seed: seed of the selection.

    Example:
        >>> from lebm.callbacks import ReconstructionGrid
        >>> ReconstructionGrid(n=8).columns
        8
    """

    def __init__(self, n: int = 16, columns: int = 8, seed: int = 0) -> None:
        at_least(1, n=n, columns=columns)
        self.n, self.columns, self.seed = n, columns, seed
        self._rows = RowCollector(["x", "reconstruction"])
        self._chosen: Tensor | None = None

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        """Choose the rows to show; ``None`` if the data set of the loader is not known."""
        self._chosen = None
        loaders = trainer.val_dataloaders if stage == "val" else trainer.test_dataloaders
        batches = trainer.num_val_batches[0] if stage == "val" else trainer.num_test_batches[0]
        loader: Any = loaders[0] if isinstance(loaders, list) else loaders
        dataset: Any = getattr(loader, "dataset", None)
        size = getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
        if not hasattr(dataset, "__len__") or size is None:
            return
        rows = len(dataset)
        if batches < len(loader):
            rows = min(rows, int(batches) * size)  # limit_val_batches or limit_test_batches
        labels: Any = getattr(dataset, "labels", None)
        known = isinstance(labels, Tensor) and labels.shape == (len(dataset),)
        classes = labels[:rows].cpu().numpy() if known else None
        self._chosen = torch.from_numpy(spread_rows(classes, rows, self.n, self.seed)).to(model.device)

    def collect(self, trainer: Trainer, model: LatentModel, stage: str, outputs: Batch, batch: Batch) -> None:
        x, reconstruction = self.output(outputs, "x"), self.output(outputs, "reconstruction")
        index = batch["index"]
        if self._chosen is not None:
            keep = torch.isin(index, self._chosen)
        else:  # the first n rows of every process include the first n rows of the batch
            keep = torch.arange(len(index), device=index.device) < self.n * self.first_batch
        self._rows.update(index=index[keep], x=x[keep], reconstruction=reconstruction[keep])

    def finish(self, trainer: Trainer, model: LatentModel, stage: str) -> None:
        rows = self._rows.table()
        shown = rows["index"][: self.n] if self._chosen is None else self._chosen
        places = {int(row): place for place, row in enumerate(rows["index"])}
        order = [places[row] for row in shown.tolist() if row in places]
        if order:
            grid = pair_grid(rows["x"][order], rows["reconstruction"][order], self.columns)
            publish_image(trainer, "reconstructions", grid)


class ReconstructionError(EvaluationCallback):
    """Squared error of reconstructions, as ``val/reconstruction_mse`` and ``test/reconstruction_mse``.

    It is computed from the reconstructions of the model's evaluation step in the [-1, 1] range (divide by 4
    for the [0, 1] range), as the mean over pixels and channels, then over samples, as in the papers. Samples
    of a held-out label are left out, because the model was not trained to reconstruct them.

    Raises:
        UserError: if a reconstruction is not finite, at the end of the pass.

    Example:
        >>> from lebm.callbacks import ReconstructionError
        >>> ReconstructionError().figures
        {}
    """

    _mean: Metric

    def __init__(self) -> None:
        self._bad = NonFinite()

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        self._mean = double_mean(model.device)

    def collect(self, trainer: Trainer, model: LatentModel, stage: str, outputs: Batch, batch: Batch) -> None:
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
        self._bad.refuse(f"{stage} reconstructions", LOWER_STEP.format("posterior"))
        value = float(self._mean.compute())
        if value == value:  # NaN without any sample
            self.report(model, {f"{stage}/reconstruction_mse": value})
        over, chains = "pixels, channels and normal samples", model.chain_settings
        self.protocol.update(range=[-1, 1], mean_over=over, chain_settings=chains)


class RevisionError(EvaluationCallback):
    """Errors of reconstructions by the inference model alone, and after posterior transitions.

    The names are ``<stage>/mse/steps0``, ``<stage>/psnr/steps0`` and ``<stage>/ssim/steps0`` for 0
    transitions, and accordingly for other numbers. Values are means over images, in the [-1, 1] range. All
    chains start at the same sample of the inference model, with the noise of the evaluation step.

    Args:
        steps: numbers of posterior transitions, at least one; 0 is the inference model alone.

    Example:
        >>> from lebm.callbacks import RevisionError
        >>> RevisionError(steps=(0, 30)).steps
        [0, 30]
    """

    def __init__(self, steps: Sequence[int] = (0, 10)) -> None:
        if not steps or min(steps) < 0:
            raise ValueError(f"steps must be numbers of at least 0, not {list(steps)}")
        self.steps = list(steps)
        self._means: dict[str, Metric] = {}

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        kinds = ("mse", "psnr", "ssim") if min(batch["x"].shape[2:]) >= SSIM_WINDOW else ("mse", "psnr")
        names = [f"{kind}/steps{steps}" for steps in self.steps for kind in kinds]
        self._means = {name: double_mean(model.device) for name in names}

    def collect(self, trainer: Trainer, model: LatentModel, stage: str, outputs: Batch, batch: Batch) -> None:
        x = self.output(outputs, "x")
        if len(x):
            for name, rows in reconstructions_after(model, x, batch["index"], self.steps).items():
                self._means[name].update(rows)

    def finish(self, trainer: Trainer, model: LatentModel, stage: str) -> None:
        values = {f"{stage}/{name}": float(mean.compute()) for name, mean in self._means.items()}
        self.report(model, {name: value for name, value in values.items() if value == value})
        steps, chains = self.steps, model.chain_settings
        self.protocol.update(range=[-1, 1], mean_over="images", steps=steps, chain_settings=chains)
