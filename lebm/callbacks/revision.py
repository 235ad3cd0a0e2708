"""What chains add to the networks that start them, and whether the chains are healthy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics import Metric

from lebm.callbacks.base import Batch, EvaluationCallback, Outputs, double_mean
from lebm.callbacks.divergence import DivergenceError, agreed
from lebm.component import Component
from lebm.estimators.latent_model import LatentModel, Revises
from lebm.evaluation.revision import reconstructions_after
from lebm.metrics.reconstruction import SSIM_WINDOW
from lebm.metrics.rows import finite_rows

__all__ = ["RevisionError", "RevisionGuard"]

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


class RevisionGuard(Callback, Component):
    """Ends a run of dual-MCMC teaching in the step in which its revised images or latents go wrong.

    In every step, before the gradients, it checks the ends of the two chains, the images of the generator,
    and the gap ``E(x) - E(x~)``. On an accelerator it waits for the device once per step; that is short
    compared with two chains. A run can also go back and continue with smaller steps. For that, leave this
    callback out and use :class:`~lebm.callbacks.Divergence` with ``policy: recover``. It looks at the gap of
    every method, after the step, and its default limit is a hundred times larger.

    Args:
        max_energy_gap: largest ``|E(x) - E(x~)|``, mean over a batch; the released code stops at 1e4.
        max_pixel: largest absolute value of a revised image; the data are in [-1, 1].
        min_spread: least standard deviation per pixel over the generated images of a batch. Below it, the
            generator makes one image only.

    Raises:
        DivergenceError: with the name of the tensor; the last healthy checkpoint is kept.
        ValueError: for an argument out of range.

    Example:
        >>> from lebm.callbacks import RevisionGuard
        >>> import torch
        >>> RevisionGuard().fault({"energy gap": torch.tensor(2e4)})
        'the energy gap is 2e+04, beyond max_energy_gap 10000'
    """

    def __init__(
        self, max_energy_gap: float = 1e4, max_pixel: float = 100.0, min_spread: float = 1e-4
    ) -> None:
        if not min(max_energy_gap, max_pixel) > 0 or min_spread < 0:
            raise ValueError(
                f"max_energy_gap and max_pixel must be positive, min_spread not negative: {max_energy_gap},"
                f" {max_pixel}, {min_spread}"
            )
        self.max_energy_gap = max_energy_gap
        self.max_pixel = max_pixel
        self.min_spread = min_spread

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        fault = self.fault(pl_module.revised if isinstance(pl_module, Revises) else {})
        if agreed(trainer, bool(fault)):
            raise DivergenceError(
                f"{fault or 'another process has diverged'} at step {trainer.global_step}; the last healthy"
                f" checkpoint is kept. {_ADVICE}"
            )

    def fault(self, revised: Mapping[str, Tensor]) -> str:
        """What is wrong with the tensors of a step, in words; empty if nothing is."""
        for name, value in revised.items():
            bad = int((~finite_rows(value.reshape(1) if not value.dim() else value)).sum())
            if bad and not value.dim():
                return f"the {name} is not finite"
            if bad:
                return f"the {name} are not finite ({bad} of {len(value)} rows)"
        gap = revised.get("energy gap")
        if gap is not None and abs(float(gap)) > self.max_energy_gap:
            return f"the energy gap is {float(gap):.4g}, beyond max_energy_gap {self.max_energy_gap:g}"
        images = revised.get("revised images")
        if images is not None and (largest := float(images.abs().max())) > self.max_pixel:
            return (
                f"the revised images reach {largest:.4g}, beyond max_pixel {self.max_pixel:g}: their chain"
                " explodes"
            )
        generated = revised.get("generated images")
        if generated is not None and len(generated) > 1:
            spread = float(generated.std(dim=0).mean())
            if spread < self.min_spread:
                return (
                    f"the generated images are all alike (spread {spread:.2g}, below min_spread"
                    f" {self.min_spread:g}): a dead generator"
                )
        return ""


_ADVICE = (
    "Raise the temperature (a smaller drift), clamp the image chain, keep spectral norm, or lower the"
    " energy's learning rate"
)
