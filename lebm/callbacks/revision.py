"""What chains add to the networks that start them."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import Trainer
from torchmetrics import Metric

from lebm.callbacks.base import Batch, EvaluationCallback, Outputs, double_mean
from lebm.estimators.latent_model import LatentModel
from lebm.evaluation.revision import reconstructions_after
from lebm.metrics.reconstruction import SSIM_WINDOW

__all__ = ["RevisionError"]

FIGURES = ("mse", "psnr", "ssim")


class RevisionError(EvaluationCallback):
    """Logs the error of reconstructions by the inference model alone, and after posterior transitions.

    The names are ``<stage>/mse/steps0``, ``<stage>/psnr/steps0`` and ``<stage>/ssim/steps0``, and the same
    for every other number of transitions. The values are means over images, in the [-1, 1] range. All chains
    start at the same draw of the inference model, with the noise of the evaluation step.

    Args:
        steps: numbers of posterior transitions; 0 is the inference model alone.

    Raises:
        ValueError: if there is no number, or a number is negative.

    Example:
        >>> from lebm.callbacks import RevisionError
        >>> RevisionError(steps=(0, 30)).steps
        [0, 30]
    """

    def __init__(self, steps: Sequence[int] = (0, 10)) -> None:
        super().__init__()
        if not steps or min(steps) < 0:
            raise ValueError(f"steps must be numbers of at least 0, not {list(steps)}")
        self.steps = list(steps)
        self._means: dict[str, Metric] = {}

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        names = FIGURES if min(batch["x"].shape[2:]) >= SSIM_WINDOW else FIGURES[:2]
        self._means = {
            f"{name}/steps{steps}": double_mean(model.device) for steps in self.steps for name in names
        }

    def collect(
        self, trainer: Trainer, model: LatentModel, stage: str, outputs: Outputs, batch: Batch
    ) -> None:
        x, index = self.output(outputs, "x"), batch["index"]
        if not x.shape[0]:
            return
        for name, rows in reconstructions_after(model, x, index, self.steps).items():
            self._means[name].update(rows)

    def finish(self, trainer: Trainer, model: LatentModel, stage: str) -> None:
        values = {f"{stage}/{name}": float(mean.compute()) for name, mean in self._means.items()}
        self.report(model, {name: value for name, value in values.items() if value == value})
        self.protocol.update(
            range=[-1, 1], mean_over="images", steps=self.steps, chain_settings=model.chain_settings
        )
