"""Pictures of latents: prior and posterior, stages of a prior, single coordinates, and long chains."""

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lebm.callbacks.base import Batch, EvaluationCallback
from lebm.callbacks.publish import publish_histogram, publish_image
from lebm.errors import UserError, at_least
from lebm.estimators.latent_model import HasLayers, LatentModel
from lebm.metrics.frechet import maximum_mean_discrepancy
from lebm.metrics.rows import RowCollector, finite_rows
from lebm.models.hierarchical import LatentLayout
from lebm.models.priors import StandardNormal
from lebm.models.ratios import RatioPrior
from lebm.plots import between, decoded, image_grid, latent_picture, most_visible, stage_picture, swept
from lebm.samplers.base import LogDensity
from lebm.samplers.noise import Noise


class PosteriorLatents(EvaluationCallback):
    """Base class of the pictures of the aggregate posterior, which collects the first latents of a pass.

    Args:
        n: number of latents, at least 2.
        steps: length of the prior's chains; the model's default if ``None``.
        seed: seed of the noise of these chains.

    Example:
        >>> from lebm.callbacks import PosteriorLatents
        >>> PosteriorLatents(n=500).n
        500
    """

    def __init__(self, n: int = 1000, steps: int | None = None, seed: int = 0) -> None:
        at_least(2, n=n)
        self.n, self.steps, self.seed = n, steps, seed
        self._rows: Any = RowCollector(["z"])

    def collect(self, trainer: Trainer, model: LatentModel, stage: str, outputs: Batch, batch: Batch) -> None:
        # The first n rows of every process include the first n rows of all processes.
        z = self.output(outputs, "z")[: self.n - sum(map(len, self._rows.rows_z))]
        self._rows.update(index=batch["index"][: len(z)], z=z)

    def latents(self) -> Tensor:
        """Return the first ``n`` latents of all processes, ``(n, d)``, or all rows of a shorter pass."""
        return self._rows.table()["z"][: self.n]


class LatentPicture(PosteriorLatents):
    """Picture ``images/latents`` of prior samples and of posterior samples of data.

    A learned prior should cover the aggregate posterior, see :func:`~lebm.plots.latent_picture`. Histograms
    of all coordinates are logged as ``histograms/latents_prior`` and ``histograms/latents_posterior``.
    Arguments are listed in :class:`PosteriorLatents`.

    Example:
        >>> from lebm.callbacks import LatentPicture
        >>> LatentPicture(n=500).n
        500
    """

    _prior: Tensor | None = None

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        if trainer.is_global_zero:
            noise = Noise.shards(self.seed, "latent picture")
            self._prior = model.sample_latent(self.n, steps=self.steps, generator=noise)

    def finish(self, trainer: Trainer, model: LatentModel, stage: str) -> None:
        posterior = self.latents()
        prior, self._prior = self._prior, None
        if prior is not None and len(posterior) > 1:
            publish_image(trainer, "latents", latent_picture(prior, posterior))
            for name, latents in (("prior", prior), ("posterior", posterior)):
                if latents.isfinite().all():
                    publish_histogram(trainer, f"latents_{name}", latents)


class StagePicture(PosteriorLatents):
    """Picture ``images/stages`` of the aggregate posterior and of the prior after each stage.

    See :func:`~lebm.plots.stage_picture`. It also logs ``prior_mmd``, the squared maximum mean discrepancy
    between the current prior and the aggregate posterior, and ``prior_mmd_start``, the discrepancy of its
    base. Arguments are listed in :class:`PosteriorLatents`.

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
        prior = model.latent_prior
        assert isinstance(prior, RatioPrior)
        base, finished = "N(0, I)" if isinstance(prior.base, StandardNormal) else "base", prior.tilt.finished
        names = [base, *(f"after stage {number}" for number in range(1, finished + 1))]
        targets: dict[str, LogDensity] = {name: prior.log_density_after(k) for k, name in enumerate(names)}
        if not prior.tilt.active_is_one:
            targets[f"stage {finished + 1}, in training"] = prior.target()
        # All processes use equal noise, so values agree. The chains of a stage start at the points of the
        # stage before, as in training.
        points = prior.reference(self.n, Noise.shards(self.seed, "stages", base))
        self._priors, self._densities = {base: points}, list(targets.values())
        for name in list(targets)[1:]:
            noise = Noise.shards(self.seed, "stages", name)
            sampler: Any = model.prior_sampler
            points = self._priors[name] = sampler(targets[name], points, noise, steps=self.steps)

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


class InterpolationGrid(EvaluationCallback):
    """Picture ``images/interpolation`` of decoded points between the latents of two images.

    Both ends of a row are reconstructions of images from the first batch, with latents on a great circle
    between them, see :func:`~lebm.plots.between`.

    Args:
        pairs: number of rows.
        columns: number of images per row, both ends included.

    Example:
        >>> from lebm.callbacks import InterpolationGrid
        >>> InterpolationGrid(pairs=3).columns
        10
    """

    def __init__(self, pairs: int = 6, columns: int = 10) -> None:
        at_least(1, pairs=pairs)
        at_least(2, columns=columns)
        self.pairs, self.columns = pairs, columns

    def collect(self, trainer: Trainer, model: LatentModel, stage: str, outputs: Batch, batch: Batch) -> None:
        z = self.output(outputs, "z")[: 2 * self.pairs]
        if self.first_batch and trainer.is_global_zero and len(z) > 1:
            ends = zip(*z[: len(z) // 2 * 2].chunk(2), strict=True)
            path = torch.cat([between(first, last, self.columns) for first, last in ends])
            publish_image(trainer, "interpolation", image_grid(decoded(model.decode, path), self.columns))


class LatentTraversal(EvaluationCallback):
    """Picture ``images/traversal`` of the effect of single coordinates of the latent.

    Each row changes one coordinate of the first encoded image from low to high, the bottom layer first. It
    works for models with or without layers.

    Args:
        extent: value subtracted from the coordinate at the left end and added at the right end, positive.
        columns: number of values of a coordinate.
        rows: largest number of coordinates, which are selected in each layer by their effect on the image.

    Example:
        >>> from lebm.callbacks import LatentTraversal
        >>> LatentTraversal(extent=3.0).columns
        11
    """

    def __init__(self, extent: float = 2.5, columns: int = 11, rows: int = 24) -> None:
        at_least(2, columns=columns)
        at_least(1, rows=rows)
        self.extent, self.columns, self.rows = extent, columns, rows

    def collect(self, trainer: Trainer, model: LatentModel, stage: str, outputs: Batch, batch: Batch) -> None:
        z = self.output(outputs, "z")
        if not self.first_batch or not trainer.is_global_zero or not len(z):
            return
        code = z[0]
        layout = model.layout if isinstance(model, HasLayers) else LatentLayout([len(code)])
        share = max(1, self.rows // len(layout))
        shown = [
            coordinate
            for layer in layout.slices
            for coordinate in most_visible(model.decode, code, self.extent, share, range(code.numel())[layer])
        ]
        ways = swept(code, shown[: self.rows], self.extent, self.columns).flatten(0, 1)
        publish_image(trainer, "traversal", image_grid(decoded(model.decode, ways), self.columns))


class LongChain(EvaluationCallback):
    """Picture ``images/long_chain`` of samples at several lengths of a prior chain, also beyond training.

    Each row is a chain and each column a length, which reveals chains that leave the region of plausible
    samples. It also logs ``long_chain/rms``, the root mean square of the latents, and
    ``long_chain/log_density``, the unnormalised log-density of the prior, at the model's default length and,
    with ``_end`` in the name, at the last length.

    Args:
        lengths: numbers of transitions, multiples of ten in rising order; longer chains continue shorter
            ones.
        n: number of chains.
        seed: seed of the noise of the chains.

    Example:
        >>> from lebm.callbacks import LongChain
        >>> LongChain(lengths=(0, 60, 600)).n
        64
    """

    every_n_epochs = None

    def __init__(
        self, lengths: tuple[int, ...] = (0, 60, 250, 500, 1000, 2500), n: int = 64, seed: int = 0
    ) -> None:
        at_least(1, n=n)
        if not lengths or sorted(lengths) != list(lengths) or any(part < 0 or part % 10 for part in lengths):
            raise ValueError(f"lengths must rise in multiples of ten, not {list(lengths)}")
        self.lengths, self.n, self.seed = tuple(lengths), n, seed

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        # All processes run equal chains, so values agree.
        def drawn(steps: int | None) -> Tensor:
            return model.sample_latent(self.n, steps=steps, generator=Noise.shards(self.seed, "long chain"))

        states, own = {length: drawn(length) for length in self.lengths}, drawn(None)
        name, values = f"{stage}/long_chain", dict[str, float]()
        for suffix, z in (("", own), ("_end", states[self.lengths[-1]])):
            values[f"{name}/rms{suffix}"] = float(z.double().square().mean().sqrt())
            if model.latent_prior is not None:
                values[f"{name}/log_density{suffix}"] = float(model.latent_prior.log_density(z).mean())
        self.report(model, values)
        self.protocol.update(lengths=list(self.lengths), chains=self.n, seed=self.seed)
        rows = torch.stack([model.decode(z[:10]) for z in states.values()], dim=1).flatten(0, 1)
        publish_image(trainer, "long_chain", image_grid(rows, len(states)))
