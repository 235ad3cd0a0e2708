"""The prior after each stage: a picture, and its distance to the posterior."""

from __future__ import annotations

from lightning.pytorch import Trainer
from torch import Tensor

from lebm.callbacks.base import Batch
from lebm.callbacks.latents import PosteriorLatents
from lebm.callbacks.publish import publish_image
from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel
from lebm.metrics.frechet import maximum_mean_discrepancy
from lebm.metrics.rows import finite_rows
from lebm.models.priors import StandardNormal
from lebm.models.ratios import RatioPrior
from lebm.plots.latents import stage_picture
from lebm.samplers.base import LogDensity
from lebm.samplers.noise import Noise

__all__ = ["StagePicture"]


class StagePicture(PosteriorLatents):
    """Shows the aggregate posterior and the prior after each stage, in ``images/stages``.

    See :func:`~lebm.plots.stage_picture`. ``prior_mmd`` is the squared maximum mean discrepancy between the
    current prior and the aggregate posterior, and ``prior_mmd_start`` is that of its base. Their ratio says
    how far the stages have brought the prior. The arguments are those of
    :class:`~lebm.callbacks.PosteriorLatents`.

    Raises:
        UserError: if the model has no ``RatioPrior``.

    Example:
        >>> from lebm.callbacks import StagePicture
        >>> StagePicture(n=500).n
        500
    """

    _priors: dict[str, Tensor]
    _densities: list[LogDensity]

    def check(self, trainer: Trainer, model: LatentModel, batch: Batch) -> None:
        if not isinstance(model.latent_prior, RatioPrior):
            raise UserError(
                f"StagePicture shows the stages of a RatioPrior, which {type(model).__name__} does not have"
            )

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        super().begin(trainer, model, stage, batch)
        prior = model.latent_prior
        assert isinstance(prior, RatioPrior)
        finished = prior.tilt.finished
        names = [
            "N(0, I)" if isinstance(prior.base, StandardNormal) else "base",
            *(f"after stage {number}" for number in range(1, finished + 1)),
        ]
        targets: list[LogDensity] = [prior.log_density_after(number) for number in range(finished + 1)]
        if not prior.tilt.active_is_one:
            names.append(f"stage {finished + 1}, in training")
            targets.append(prior.target())
        # Every process draws the same points, so the values agree. The chains of a stage start at the points
        # of the stage before, as in training.
        self._priors, self._densities = {}, targets
        points = prior.reference(self.n, Noise.shards(self.seed, "stages", names[0]))
        self._priors[names[0]] = points
        for name, target in zip(names[1:], targets[1:], strict=True):
            noise = Noise.shards(self.seed, "stages", name)
            sampler = model.prior_chain(1, Noise([("a start that is not used",)])).sampler
            points = self._priors[name] = sampler(target, points, noise, steps=self.steps)

    def finish(self, trainer: Trainer, model: LatentModel, stage: str) -> None:
        posterior = self.latents()
        posterior = posterior[finite_rows(posterior)]
        clouds = {name: cloud[finite_rows(cloud)] for name, cloud in self._priors.items()}
        densities, self._priors, self._densities = self._densities, {}, []
        if len(posterior) < 2 or min(map(len, clouds.values())) < 2:
            return
        far = {name: float(maximum_mean_discrepancy(cloud, posterior)) for name, cloud in clouds.items()}
        distances = list(far.values())
        self.report(model, {f"{stage}/prior_mmd": distances[-1], f"{stage}/prior_mmd_start": distances[0]})
        kernel = "Gaussian, median distance of the posterior"
        self.protocol = {"n": self.n, "steps": self.steps, "kernel": kernel}
        if trainer.is_global_zero:
            titles = {f"{name}\nMMD² {far[name]:.4f}": cloud for name, cloud in clouds.items()}
            flat = posterior.shape[1] == 2
            publish_image(trainer, "stages", stage_picture(posterior, titles, densities if flat else None))
