"""Reconstructions of data: a picture and an error."""

from __future__ import annotations

from collections.abc import Mapping

from lightning.pytorch import Trainer
from torch import Tensor
from torchmetrics import Metric

from lebm.callbacks.base import EvaluationCallback, Outputs, double_mean
from lebm.callbacks.publish import publish_image
from lebm.estimators.base import LatentEstimator
from lebm.metrics.reconstruction import squared_error_rows
from lebm.metrics.rows import NonFinite, RowCollector, finite_rows
from lebm.plots.grids import pair_grid

__all__ = ["ReconstructionError", "ReconstructionGrid"]


class ReconstructionGrid(EvaluationCallback):
    """Shows the first validation or test images and their reconstructions, in ``images/reconstructions``.

    Args:
        n: number of images; fewer if the first batch is smaller.
        columns: images per row. Below each row of data is the row of its reconstructions.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> from lebm.callbacks import ReconstructionGrid
        >>> ReconstructionGrid(n=8).columns
        8
    """

    def __init__(self, n: int = 16, columns: int = 8) -> None:
        super().__init__()
        if n < 1 or columns < 1:
            raise ValueError(f"n and columns must be at least 1, not {n} and {columns}")
        self.n = n
        self.columns = columns
        self._rows: RowCollector | None = None

    def begin(
        self, trainer: Trainer, model: LatentEstimator, stage: str, batch: Mapping[str, Tensor]
    ) -> None:
        self._rows = RowCollector(["x", "reconstruction"]).to(model.device)

    def collect(
        self,
        trainer: Trainer,
        model: LatentEstimator,
        stage: str,
        outputs: Outputs,
        batch: Mapping[str, Tensor],
    ) -> None:
        if self._rows is None:
            return
        x, reconstruction = self.output(outputs, "x"), self.output(outputs, "reconstruction")
        self._rows.update(
            index=batch["index"][: self.n], x=x[: self.n], reconstruction=reconstruction[: self.n]
        )
        rows = self._rows.table()  # the first n rows of every process include the first n of the batch
        self._rows = None
        if rows["x"].shape[0]:
            publish_image(
                trainer,
                "reconstructions",
                pair_grid(rows["x"][: self.n], rows["reconstruction"][: self.n], self.columns),
            )


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

    def begin(
        self, trainer: Trainer, model: LatentEstimator, stage: str, batch: Mapping[str, Tensor]
    ) -> None:
        self._mean = double_mean(model.device)
        self._bad.to(model.device).reset()

    def collect(
        self,
        trainer: Trainer,
        model: LatentEstimator,
        stage: str,
        outputs: Outputs,
        batch: Mapping[str, Tensor],
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

    def finish(self, trainer: Trainer, model: LatentEstimator, stage: str) -> None:
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
