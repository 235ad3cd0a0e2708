"""The Fréchet inception distance (FID), or a Fréchet distance in other features."""

from typing import Literal

import torch
from lightning.pytorch import Trainer

from lebm.callbacks.base import LOWER_STEP, Batch, EvaluationCallback, data_of, log, whole_split
from lebm.errors import at_least
from lebm.estimators.latent_model import LatentModel
from lebm.evaluation.chains import CHUNK, sample_chunks
from lebm.evaluation.image import check_images
from lebm.metrics import frechet
from lebm.metrics.features import FeatureExtractor, FeaturesUnavailableError, InceptionFeatures
from lebm.metrics.rows import NonFinite
from lebm.models.layers import check_choice


class FrechetDistance(EvaluationCallback):
    """Fréchet distance of samples and real images, as ``fid`` or ``frechet_distance/<features>``.

    The papers compare 50,000 samples with all training images, without flips. The value falls with the number
    of samples, so compare values of equal numbers only. Samples are clamped to [-1, 1] and drawn in chunks
    with separate noise, so the value depends on ``seed`` and ``chunk_size``, but not on the number of
    processes. If the weights of Inception are missing and cannot be downloaded, a warning replaces the value.

    Args:
        features: feature extractor; ``pool_3`` of Inception if ``None``.
        n_samples: number of generated samples, at least 2.
        split: split of the real images, ``train``, ``validation`` or ``test``, whose statistics are kept in
            memory.
        every_n_epochs: number of epochs between measurements in training; only in ``validate`` and ``test``
            if ``None``.
        chunk_size: number of samples per chunk.
        steps: length of the chain; the model's default if ``None``.
        seed: seed of the noise of the samples.

    Raises:
        UserError: if the data module lacks the split, or if images or samples have a wrong shape or range.

    Example:
        >>> from lebm.callbacks import FrechetDistance
        >>> FrechetDistance(n_samples=10_000).features.figure
        'fid'
    """

    def __init__(
        self,
        features: FeatureExtractor | None = None,
        n_samples: int = 50_000,
        split: Literal["train", "validation", "test"] = "train",
        every_n_epochs: int | None = None,
        chunk_size: int = CHUNK,
        steps: int | None = None,
        seed: int = 0,
    ) -> None:
        at_least(2, n_samples=n_samples)
        at_least(1, chunk_size=chunk_size, every_n_epochs=every_n_epochs)
        check_choice("split", split, ("train", "validation", "test"))
        self.features = features or InceptionFeatures()
        self.n_samples, self.split, self.every_n_epochs = n_samples, split, every_n_epochs
        self.chunk_size, self.steps, self.seed = chunk_size, steps, seed
        self._bad = NonFinite()
        self._measured_data: object = "none yet"
        self._unavailable = False

    def wanted(self, trainer: Trainer, stage: str) -> bool:
        return super().wanted(trainer, stage) and not self._unavailable and self._prepare(trainer)

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        self.features.to(model.device).eval()
        self._measure_real(trainer, model, batch)
        part, shape = (trainer.global_rank, trainer.world_size), batch["x"].shape[1:]
        size, steps = self.chunk_size, self.steps
        chunks = sample_chunks(model, self.n_samples, self.seed, shape, size, steps, part=part)
        for first, x, finite in chunks:
            self._bad.update(finite, torch.arange(first, first + len(x), device=x.device))
            self._metric.update(self.features(x[finite]), real=False)

    def finish(self, trainer: Trainer, model: LatentModel, stage: str) -> None:
        self._bad.refuse("generated samples", LOWER_STEP.format("prior"))
        self.report(model, {f"{stage}/{self.features.figure}": float(self._metric.compute())})
        self.protocol.update(
            figure=self.features.figure,
            samples=self.n_samples,
            chunk_size=self.chunk_size,
            seed=self.seed,
            steps=self.steps,
            real_split=self.split,
            note=self.features.note,
            chain_settings=model.chain_settings,
        )

    def _prepare(self, trainer: Trainer) -> bool:
        """Load the extractor; the first process of a machine downloads the weights alone."""
        problem: FeaturesUnavailableError | None = None
        for turn in (True, False):
            if (trainer.local_rank == 0) == turn:
                try:
                    self.features.prepare()
                except FeaturesUnavailableError as error:
                    problem = error
            trainer.strategy.barrier()
        self._unavailable = not trainer.strategy.reduce_boolean_decision(problem is None)
        if self._unavailable and trainer.is_global_zero:
            log.warning("%s", problem or "FID is left out: another process found no Inception weights")
        return not self._unavailable

    def _measure_real(self, trainer: Trainer, model: LatentModel, batch: Batch) -> None:
        """Measure the real images, once, because a new pass resets only the samples."""
        if self._measured_data is data_of(trainer):
            return
        empty = self.features(batch["x"].new_zeros((1, *batch["x"].shape[1:])).float())
        self._metric = frechet.FrechetDistance(empty.shape[1]).to(model.device)
        for rows in whole_split(trainer, model.device, self.split, "FrechetDistance"):
            x = rows["x"].float()
            check_images(x, f"the {self.split} data")
            self._metric.update(self.features(x), real=True)
        self._measured_data = data_of(trainer)
