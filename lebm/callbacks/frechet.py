"""FID, or a Frechet distance in other features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lebm.callbacks.base import EvaluationCallback, data_of, has_split, log, whole_split
from lebm.errors import UserError
from lebm.estimators.base import LatentEstimator
from lebm.evaluation.draws import CHUNK, check_images, drawn_images
from lebm.metrics import frechet
from lebm.metrics.features import FeatureExtractor, FeaturesUnavailableError, InceptionFeatures
from lebm.metrics.rows import NonFinite

__all__ = ["FrechetDistance"]


class FrechetDistance(EvaluationCallback):
    """Logs ``val/fid`` and ``test/fid``, or ``.../frechet_distance/<features>`` where the features are not
    Inception's.

    The papers' protocol is 50,000 samples against all training images, without flips; the value falls with
    the number of samples, so compare at equal numbers only. Samples are clamped to [-1, 1]. They come in
    chunks, each with a noise stream of its own, and the chunks are dealt to the processes, so the value does
    not depend on their number; it does depend on ``seed`` and, as other noise would, on ``chunk_size``. If
    Inception's weights cannot be had, one line says so and the figure is absent.

    Args:
        extractor: the features; Inception's ``pool_3`` if absent.
        n_samples: number of generated samples, at least 2.
        split: the real images to compare with, all of ``train``, ``validation`` or ``test``; their statistics
            are kept in memory.
        every_n_epochs: distance between measurements in training; by default only ``validate`` and ``test``
            measure.
        chunk_size: samples drawn at once.
        steps: length of the chain; the model's own if absent.
        seed: of the samples' noise.

    Example:
        >>> from lebm.callbacks import FrechetDistance
        >>> FrechetDistance(n_samples=10_000).extractor.figure
        'fid'
    """

    def __init__(
        self,
        extractor: FeatureExtractor | None = None,
        n_samples: int = 50_000,
        split: Literal["train", "validation", "test"] = "train",
        every_n_epochs: int | None = None,
        chunk_size: int = CHUNK,
        steps: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if n_samples < 2 or chunk_size < 1 or (every_n_epochs is not None and every_n_epochs < 1):
            raise ValueError(
                f"n_samples must be at least 2, chunk_size and every_n_epochs at least 1: {n_samples},"
                f" {chunk_size}, {every_n_epochs}"
            )
        if split not in ("train", "validation", "test"):
            raise ValueError(f"split must be train, validation or test, not {split!r}")
        self.extractor = InceptionFeatures() if extractor is None else extractor
        self.n_samples = n_samples
        self.split = split
        self.every_n_epochs = every_n_epochs
        self.chunk_size = chunk_size
        self.steps = steps
        self.seed = seed
        self._bad = NonFinite()
        self._metric: frechet.FrechetDistance | None = None
        self._measured_data: object = None
        self._measuring = False
        self._unavailable = False

    def begin(
        self, trainer: Trainer, model: LatentEstimator, stage: str, batch: Mapping[str, Tensor]
    ) -> None:
        self._measuring = self._due(trainer) and not self._unavailable and self._prepare(trainer)
        if not self._measuring:
            return
        self.extractor.to(model.device).eval()
        self._bad.to(model.device).reset()
        with torch.no_grad():
            self._measure_real(trainer, model, batch)
            self._measure_samples(trainer, model, batch["x"].shape[1:])

    def finish(self, trainer: Trainer, model: LatentEstimator, stage: str) -> None:
        if not self._measuring or self._metric is None:
            return
        self._bad.refuse(
            "generated samples", "look at mcmc/prior/nonfinite and lower the prior sampler's step size"
        )
        name, value = f"{stage}/{self.extractor.figure}", float(self._metric.compute())
        self.report(model, {name: value})
        self.protocol.update(
            figure=self.extractor.figure,
            samples=self.n_samples,
            chunk_size=self.chunk_size,
            seed=self.seed,
            steps=self.steps,
            real_split=self.split,
            note=self.extractor.note,
            chain_settings=model.chain_settings,
        )
        if trainer.is_global_zero and trainer.state.fn != TrainerFn.FITTING:
            note = f"; {self.extractor.note}" if self.extractor.note else ""
            print(
                f"{name} = {value:.4g} ({self.n_samples} samples of seed {self.seed} against all of the"
                f" {self.split} split{note})"
            )

    def _due(self, trainer: Trainer) -> bool:
        if trainer.state.fn != TrainerFn.FITTING:
            return True
        return self.every_n_epochs is not None and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _prepare(self, trainer: Trainer) -> bool:
        """Load the extractor, the first process of a machine before the others so that one of them fetches
        the weights.
        """
        problem: FeaturesUnavailableError | None = None
        for turn in (True, False):
            if (trainer.local_rank == 0) == turn:
                try:
                    self.extractor.prepare()
                except FeaturesUnavailableError as error:
                    problem = error
            trainer.strategy.barrier()
        ready = trainer.strategy.reduce_boolean_decision(problem is None)
        if not ready:
            self._unavailable = True
            if trainer.is_global_zero:
                log.warning("%s", problem or "FID is left out: another process found no Inception weights")
        return ready

    def _measure_real(self, trainer: Trainer, model: LatentEstimator, batch: Mapping[str, Tensor]) -> None:
        if self._metric is not None and self._measured_data is data_of(trainer):
            self._metric.reset()  # the samples only
            return
        if not has_split(trainer, self.split):
            raise UserError(
                f"FrechetDistance: the data module has no {self.split} split with an evaluation_dataloader"
            )
        empty = self.extractor(batch["x"].new_zeros((1, *batch["x"].shape[1:])).float())
        self._metric = frechet.FrechetDistance(empty.shape[1]).to(model.device)
        for rows in whole_split(trainer, model.device, self.split):
            x = rows["x"].float()
            check_images(x, f"the {self.split} data")
            self._metric.update(self.extractor(x), real=True)
        self._measured_data = data_of(trainer)

    def _measure_samples(self, trainer: Trainer, model: LatentEstimator, shape: torch.Size) -> None:
        assert self._metric is not None
        for chunk in range(trainer.global_rank, -(-self.n_samples // self.chunk_size), trainer.world_size):
            first = chunk * self.chunk_size
            count = min(self.chunk_size, self.n_samples - first)
            x, finite = drawn_images(model, count, chunk, self.seed, self.steps, shape)
            self._bad.update(finite, torch.arange(first, first + count, device=x.device))
            self._metric.update(self.extractor(x[finite]), real=False)
