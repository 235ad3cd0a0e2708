"""A picture of prior and posterior samples."""

from __future__ import annotations

from lightning.pytorch import Trainer
from torch import Tensor

from lebm.callbacks.base import Batch, EvaluationCallback, Outputs
from lebm.callbacks.publish import publish_histogram, publish_image
from lebm.estimators.latent_model import LatentModel
from lebm.metrics.rows import RowCollector
from lebm.plots.latents import latent_picture
from lebm.samplers.noise import Noise

__all__ = ["LatentPicture", "PosteriorLatents"]


class PosteriorLatents(EvaluationCallback):
    """Base class of the pictures of the aggregate posterior: it collects the first latents of a pass.

    Args:
        n: number of latents, at least 2.
        steps: length of the prior's chains; the model's default if ``None``.
        seed: of the noise of these chains.

    Raises:
        ValueError: if ``n`` is below 2.

    Example:
        >>> from lebm.callbacks.latents import PosteriorLatents
        >>> class Spread(PosteriorLatents):
        ...     def finish(self, trainer, model, stage):
        ...         self.report(model, {f"{stage}/spread": float(self.latents().std())})
        >>> Spread(n=500).n
        500
    """

    def __init__(self, n: int = 1000, steps: int | None = None, seed: int = 0) -> None:
        super().__init__()
        if n < 2:
            raise ValueError(f"n must be at least 2, not {n}")
        self.n = n
        self.steps = steps
        self.seed = seed
        self._rows = RowCollector(["z"])
        self._held = 0

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        self._rows.to(model.device).reset()
        self._held = 0

    def collect(
        self, trainer: Trainer, model: LatentModel, stage: str, outputs: Outputs, batch: Batch
    ) -> None:
        # The first n rows of every process include the first n rows of all, for any number of processes.
        z = self.output(outputs, "z")[: self.n - self._held]
        self._rows.update(index=batch["index"][: z.shape[0]], z=z)
        self._held += z.shape[0]

    def latents(self) -> Tensor:
        """The first ``n`` latents of all processes, ``(n, d)``; fewer if the pass had fewer rows."""
        posterior = self._rows.table()["z"][: self.n]
        self._rows.reset()
        return posterior


class LatentPicture(PosteriorLatents):
    """Shows samples of the prior and posterior samples of data, in ``images/latents``.

    A learned prior should cover the aggregate posterior. The left panel shows both on the first two principal
    components of the posterior. The right panel shows the histograms of all coordinates, with N(0, 1) for
    comparison. The two histograms are also logged, as ``histograms/latents_prior`` and
    ``histograms/latents_posterior``.

    Args:
        n: number of points of each kind, at least 2.
        steps: length of the prior's chain; the model's default if ``None``.
        seed: of the noise of the prior's chain.

    Raises:
        ValueError: if ``n`` is below 2.

    Example:
        >>> from lebm.callbacks import LatentPicture
        >>> LatentPicture(n=500).n
        500
    """

    _prior: Tensor | None = None

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        super().begin(trainer, model, stage, batch)
        if trainer.is_global_zero:
            noise = Noise.shards(self.seed, "latent picture")
            self._prior = model.sample_latent(self.n, steps=self.steps, generator=noise)

    def finish(self, trainer: Trainer, model: LatentModel, stage: str) -> None:
        posterior = self.latents()
        prior, self._prior = self._prior, None
        if prior is not None and posterior.shape[0] > 1:
            publish_image(trainer, "latents", latent_picture(prior, posterior))
            for name, latents in (("prior", prior), ("posterior", posterior)):
                if latents.isfinite().all():
                    publish_histogram(trainer, f"latents_{name}", latents)
