"""The prior after each stage: a picture, and its distance to the posterior."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lightning.pytorch import Trainer
from torch import Tensor

from lebm.callbacks.base import EvaluationCallback, Outputs
from lebm.callbacks.publish import publish_image
from lebm.errors import UserError
from lebm.estimators.base import LatentEstimator
from lebm.metrics.discrepancy import maximum_mean_discrepancy
from lebm.metrics.rows import RowCollector, finite_rows
from lebm.models.ratios import RatioPrior
from lebm.plots.stages import stage_picture
from lebm.samplers.noise import Noise

__all__ = ["StagePicture"]

LogDensity = Callable[[Tensor], Tensor]


class StagePicture(EvaluationCallback):
    """Shows the aggregate posterior and the prior after each stage, in ``images/stages``, for a model with a
    ``RatioPrior``.

    Both clouds are drawn on the posterior's first two principal components; with two latent coordinates there
    is the density of every prior too. Logs ``prior_mmd``, the squared maximum mean discrepancy between prior
    and aggregate posterior as they are now, and ``prior_mmd_start``, that of N(0, I): the ratio says how much
    of the way the stages have come.

    Args:
        n: number of points of each cloud, at least 2.
        steps: length of the chains; the prior sampler's own if absent.
        seed: of their noise.

    Example:
        >>> from lebm.callbacks import StagePicture
        >>> StagePicture(n=500).n
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
        self._priors: dict[str, Tensor] = {}
        self._densities: list[LogDensity] = []

    def begin(
        self, trainer: Trainer, model: LatentEstimator, stage: str, batch: Mapping[str, Tensor]
    ) -> None:
        prior = model.latent_prior
        if not isinstance(prior, RatioPrior):
            raise UserError(
                f"StagePicture shows the stages of a RatioPrior, which {type(model).__name__} does not have"
            )
        self._rows.to(model.device).reset()
        self._held = 0
        finished = prior.tilt.finished
        names = ["N(0, I)", *(f"after stage {number}" for number in range(1, finished + 1))]
        targets = [prior.log_density_after(number) for number in range(finished + 1)]
        if not prior.tilt.active_is_one:
            names.append(f"stage {finished + 1}, in training")
            targets.append(prior.log_density)
        # Every process draws the same points, so that the figures agree. Chains go on from stage to stage, as
        # in training.
        self._priors, self._densities = {}, targets
        points = prior.reference(self.n, Noise.shards(self.seed, "stages", names[0]))
        self._priors[names[0]] = points
        for name, target in zip(names[1:], targets[1:], strict=True):
            noise = Noise.shards(self.seed, "stages", name)
            sampler = model.prior_chain(1, Noise([("a start that is not used",)])).sampler
            points = self._priors[name] = sampler(target, points, noise, steps=self.steps)

    def collect(
        self,
        trainer: Trainer,
        model: LatentEstimator,
        stage: str,
        outputs: Outputs,
        batch: Mapping[str, Tensor],
    ) -> None:
        z = self.output(outputs, "z")[: self.n - self._held]
        self._rows.update(index=batch["index"][: z.shape[0]], z=z)
        self._held += z.shape[0]

    def finish(self, trainer: Trainer, model: LatentEstimator, stage: str) -> None:
        posterior = self._rows.table()["z"][: self.n]
        posterior = posterior[finite_rows(posterior)]
        self._rows.reset()
        clouds = {name: cloud[finite_rows(cloud)] for name, cloud in self._priors.items()}
        densities = self._densities
        self._priors, self._densities = {}, []
        if len(posterior) < 2 or min(map(len, clouds.values())) < 2:
            return
        far = {name: float(maximum_mean_discrepancy(cloud, posterior)) for name, cloud in clouds.items()}
        first, last = next(iter(far)), list(far)[-1]
        self.report(model, {f"{stage}/prior_mmd": far[last], f"{stage}/prior_mmd_start": far[first]})
        self.protocol = {
            "n": self.n,
            "steps": self.steps,
            "kernel": "Gaussian, median distance of the posterior",
        }
        if trainer.is_global_zero:
            titles = {f"{name}\nMMD² {far[name]:.4f}": cloud for name, cloud in clouds.items()}
            publish_image(
                trainer,
                "stages",
                stage_picture(posterior, titles, densities if posterior.shape[1] == 2 else None),
            )
