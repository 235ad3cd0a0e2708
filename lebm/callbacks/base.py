"""What the evaluation callbacks share: one shape for validation and test."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lebm.component import Component
from lebm.errors import UserError
from lebm.estimators.base import LatentEstimator

__all__ = ["EvaluationCallback", "Outputs", "data_of", "has_split", "whole_split"]

Outputs = Mapping[str, Tensor]

log = logging.getLogger("lebm.callbacks")


class EvaluationCallback(Callback, Component):
    """Base of the callbacks that look at a validation or test pass.

    A pass calls :meth:`begin` once, :meth:`collect` for every batch, and :meth:`finish` once. ``begin`` and
    ``collect`` run inside batch hooks. There the averaged weights (EMA) are in use, whatever the order of the
    callbacks. So anything that draws from the model belongs into them. Lightning's check before training is
    left out, and so is every data loader after the first. ``stage`` is ``"val"`` or ``"test"``, the prefix of
    every logged name.

    Attributes:
        figures: the last values by their logged name, in double precision, the same on every process.
        protocol: how the values were obtained, as plain values, for a summary of the run.

    Example:
        >>> from lebm.callbacks import EvaluationCallback
        >>> class Brightness(EvaluationCallback):
        ...     def collect(self, trainer, model, stage, outputs, batch):
        ...         self.report(model, {f"{stage}/brightness": float(self.output(outputs, "x").mean())})
        >>> Brightness().figures
        {}
    """

    _open = False

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self.protocol: dict[str, Any] = {}

    def begin(
        self, trainer: Trainer, model: LatentEstimator, stage: str, batch: Mapping[str, Tensor]
    ) -> None:
        """Before the first batch of a pass, with that batch already on the device."""

    def collect(
        self,
        trainer: Trainer,
        model: LatentEstimator,
        stage: str,
        outputs: Outputs,
        batch: Mapping[str, Tensor],
    ) -> None:
        """After a batch; ``outputs`` is what the model's step returned. A process's part of a batch may have
        zero rows.
        """

    def finish(self, trainer: Trainer, model: LatentEstimator, stage: str) -> None:
        """At the end of the pass, on every process."""

    def report(self, model: LatentEstimator, values: Mapping[str, float]) -> None:
        """Log figures, equal on all processes, and remember them."""
        self.figures.update(values)
        model.log_dict(dict(values), sync_dist=True)

    def output(self, outputs: Any, name: str) -> Tensor:
        """One entry of a step's outputs.

        Raises:
            UserError: if the model's step does not return it.
        """
        if not isinstance(outputs, Mapping) or name not in outputs:
            raise UserError(
                f"{type(self).__name__} needs the model's validation and test steps to return a dictionary"
                f" with {name!r}"
            )
        return outputs[name]

    # Lightning's hooks

    def _begin(
        self,
        trainer: Trainer,
        model: LatentEstimator,
        stage: str,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        if batch_idx == 0 and dataloader_idx == 0 and not trainer.sanity_checking:
            if "figures" not in vars(self):
                raise UserError(
                    f"{type(self).__name__}.__init__ must call super().__init__() before anything else"
                )
            self._open = True
            self.begin(trainer, model, stage, batch)

    def _collect(
        self,
        trainer: Trainer,
        model: LatentEstimator,
        stage: str,
        outputs: Any,
        batch: Any,
        dataloader_idx: int,
    ) -> None:
        if self._open and dataloader_idx == 0:
            self.collect(trainer, model, stage, outputs, batch)

    def _finish(self, trainer: Trainer, model: LatentEstimator, stage: str) -> None:
        if self._open:
            self._open = False
            self.finish(trainer, model, stage)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._begin(trainer, cast(LatentEstimator, pl_module), "val", batch, batch_idx, dataloader_idx)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._collect(trainer, cast(LatentEstimator, pl_module), "val", outputs, batch, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, cast(LatentEstimator, pl_module), "val")

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._begin(trainer, cast(LatentEstimator, pl_module), "test", batch, batch_idx, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._collect(trainer, cast(LatentEstimator, pl_module), "test", outputs, batch, dataloader_idx)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, cast(LatentEstimator, pl_module), "test")


def data_of(trainer: Trainer) -> Any:
    """The data module of a run; ``None`` if the trainer was given data loaders instead."""
    return getattr(trainer, "datamodule", None)  # Lightning sets it only where there is one


def has_split(trainer: Trainer, split: str) -> bool:
    """Whether the data module can give the rows of a whole split, ``train``, ``validation`` or ``test``."""
    data = data_of(trainer)
    return getattr(data, split, None) is not None and hasattr(data, "evaluation_dataloader")


def whole_split(trainer: Trainer, device: torch.device, split: str) -> Iterator[dict[str, Tensor]]:
    """This process's batches of a whole split, in order and without augmentation, on the device.

    The data module must have it, see :func:`has_split`.
    """
    data = data_of(trainer)
    for batch in data.evaluation_dataloader(getattr(data, split)):
        batch = data.on_before_batch_transfer(batch, 0)
        batch = data.transfer_batch_to_device(batch, device, 0)
        yield data.on_after_batch_transfer(batch, 0)
