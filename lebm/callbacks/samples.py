"""Samples from fixed noise: a grid of images, or sentences."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from lebm.callbacks.base import Batch, EvaluationCallback
from lebm.callbacks.publish import moment, publish_image, publish_table, takes_tables
from lebm.errors import at_least
from lebm.estimators.latent_model import LatentModel
from lebm.evaluation.sentences import likelihood_of_sentences
from lebm.files import write_text
from lebm.models.frozen import frozen
from lebm.plots import image_grid
from lebm.samplers.noise import Noise

TABLED = 16  # images per table, because every image is a separate file and each epoch may have a table


class SampleGrid(EvaluationCallback):
    """Picture ``images/samples`` of samples, always from the same noise.

    It is drawn in validation, or after a training epoch without validation, and for the final model of a
    training. The first process draws all samples, so the picture does not depend on the number of processes.
    Pixels are clamped to [-1, 1]. The first 16 samples are also logged as ``tables/samples`` in Weights &
    Biases.

    Args:
        n: number of samples.
        every_n_epochs: number of epochs between pictures in training.
        steps: length of the chain; the model's default if ``None``.
        columns: number of samples per row.
        seed: seed of the noise.

    Example:
        >>> from lebm.callbacks import SampleGrid
        >>> SampleGrid(n=16, columns=4).n
        16
    """

    def __init__(
        self, n: int = 64, every_n_epochs: int = 1, steps: int | None = None, columns: int = 8, seed: int = 0
    ) -> None:
        at_least(1, n=n, every_n_epochs=every_n_epochs, columns=columns)
        self.n, self.every_n_epochs, self.steps = n, every_n_epochs, steps
        self.columns, self.seed = columns, seed
        self._drawn: int | None = None

    def wanted(self, trainer: Trainer, stage: str) -> bool:
        return super().wanted(trainer, stage) or trainer.current_epoch + 1 == trainer.max_epochs

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        self._draw(trainer, model)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if not trainer.enable_validation and self.wanted(trainer, "val"):
            self._draw(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self._drawn != trainer.global_step:
            self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, model: LatentModel) -> None:
        self._drawn = trainer.global_step
        if not trainer.is_global_zero:
            return
        with frozen(model), torch.no_grad():
            x = model.sample(self.n, steps=self.steps, generator=Noise.shards(self.seed, "sample grid"))
        self._show(trainer, model, x)

    def _show(self, trainer: Trainer, model: LatentModel, x: Tensor) -> None:
        publish_image(trainer, "samples", image_grid(x, self.columns))
        if takes_tables(trainer):
            _publish(trainer, "image", [image_grid(row[None], 1) for row in x[:TABLED]])


class SampleSentences(SampleGrid):
    """Sentences sampled always from the same noise, in text files, one sentence per line.

    They are drawn at the times of :class:`SampleGrid`. The files are ``samples/<when>.txt`` and
    ``samples/latest.txt``, and the table ``tables/samples`` is logged to Weights & Biases.

    Args:
        n: number of sentences.
        every_n_epochs: number of epochs between samples in training.
        steps: length of the chain; the model's default if ``None``.
        seed: seed of the noise.

    Raises:
        UserError: if the model is not a model of sentences.

    Example:
        >>> from lebm.callbacks import SampleSentences
        >>> SampleSentences(n=5).n
        5
    """

    def __init__(self, n: int = 20, every_n_epochs: int = 1, steps: int | None = None, seed: int = 0) -> None:
        super().__init__(n, every_n_epochs, steps, seed=seed)

    def _show(self, trainer: Trainer, model: LatentModel, x: Tensor) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        sentences = likelihood_of_sentences(model, type(self).__name__).spell(x)
        text = "".join(f"{sentence}\n" for sentence in sentences)
        for name in (moment(trainer), "latest"):
            write_text(Path(trainer.default_root_dir, "samples", f"{name}.txt"), text)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("samples", "\n\n".join(sentences), global_step=trainer.global_step)
        _publish(trainer, "sentence", sentences)


def _publish(trainer: Trainer, kind: str, samples: Sequence[Any]) -> None:
    """Log samples as the table ``tables/samples`` with the columns ``step``, ``sample`` and ``kind``."""
    rows = ([trainer.global_step, number, sample] for number, sample in enumerate(samples))
    publish_table(trainer, "samples", ["step", "sample", kind], rows)
