"""What the evaluation callbacks share: their base class, and access to the data of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torchmetrics import MeanMetric

from lebm.component import Component
from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel

__all__ = [
    "Batch",
    "EvaluationCallback",
    "Outputs",
    "data_of",
    "double_mean",
    "due",
    "has_split",
    "whole_split",
]

Batch = Mapping[str, Tensor]
Outputs = Mapping[str, Tensor]

log = logging.getLogger("lebm.callbacks")


class EvaluationCallback(Callback, Component):
    """Base class of the callbacks that look at a validation or test pass.

    A pass calls :meth:`begin` once, :meth:`collect` for every batch, and :meth:`finish` once. ``begin`` and
    ``collect`` run inside batch hooks. There the averaged weights (EMA) are in use, whatever the order of the
    callbacks. So a callback draws from the model in these two methods only. Lightning's check before training
    calls none of them, and neither does a data loader after the first one, nor a pass that :meth:`wanted`
    leaves out. ``stage`` is ``"val"`` or ``"test"``, the
    prefix of every logged name.

    Attributes:
        figures: the last logged values by name, in double precision, the same on every process.
        protocol: the settings behind the values, as plain values, for the summary of the run.

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

    def wanted(self, trainer: Trainer, stage: str) -> bool:
        """Whether the callback acts in the pass that begins; every process must give the same answer."""
        return True

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        """Before the first batch of a pass, with that batch already on the device."""

    def collect(
        self, trainer: Trainer, model: LatentModel, stage: str, outputs: Outputs, batch: Batch
    ) -> None:
        """After a batch; ``outputs`` is the result of the model's step.

        With several processes, a process may hold zero rows of a batch.
        """

    def finish(self, trainer: Trainer, model: LatentModel, stage: str) -> None:
        """At the end of the pass, on every process."""

    def report(self, model: LatentModel, values: Mapping[str, float]) -> None:
        """Log values that are equal on all processes, and keep them in ``figures``."""
        self.figures.update(values)
        model.log_dict(dict(values), sync_dist=True)

    def output(self, outputs: Any, name: str) -> Tensor:
        """One entry of the outputs of a step.

        Raises:
            UserError: if the model's step does not return this entry.
        """
        if not isinstance(outputs, Mapping) or name not in outputs:
            raise UserError(
                f"{type(self).__name__} needs the model's validation and test steps to return a dictionary"
                f" with {name!r}"
            )
        return outputs[name]

    # Lightning's hooks

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == 0 and dataloader_idx == 0 and not trainer.sanity_checking:
            if "figures" not in vars(self):
                raise UserError(
                    f"{type(self).__name__}.__init__ must call super().__init__() before anything else"
                )
            self._open = self.wanted(trainer, _stage(trainer))
            if self._open:
                self.begin(trainer, cast(LatentModel, pl_module), _stage(trainer), batch)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._open and dataloader_idx == 0:
            self.collect(trainer, cast(LatentModel, pl_module), _stage(trainer), outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._open:
            self._open = False
            self.finish(trainer, cast(LatentModel, pl_module), _stage(trainer))

    on_test_batch_start = on_validation_batch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end


def _stage(trainer: Trainer) -> str:
    return "test" if trainer.testing else "val"


def due(trainer: Trainer, every_n_epochs: int | None) -> bool:
    """Whether a callback acts in this pass.

    It acts in every pass outside training. In training it acts after every ``every_n_epochs`` epochs, and
    never if that is ``None``.
    """
    if trainer.state.fn != TrainerFn.FITTING:
        return True
    return every_n_epochs is not None and (trainer.current_epoch + 1) % every_n_epochs == 0


def double_mean(device: torch.device, nan_strategy: Literal["warn", "disable"] = "disable") -> MeanMetric:
    """A mean on a device, in double precision.

    The dtype is set last, because a move to a device makes the metric round its inputs to single precision.
    """
    mean = MeanMetric(nan_strategy=nan_strategy).to(device)
    mean.set_dtype(torch.float64)
    return mean


def data_of(trainer: Trainer) -> Any:
    """The data module of a run; ``None`` if the trainer has data loaders instead."""
    return getattr(trainer, "datamodule", None)  # Lightning sets the attribute only if there is one


def has_split(trainer: Trainer, split: str) -> bool:
    """Whether the data module gives the rows of a whole split, ``train``, ``validation`` or ``test``."""
    data = data_of(trainer)
    return getattr(data, split, None) is not None and hasattr(data, "evaluation_dataloader")


def whole_split(trainer: Trainer, device: torch.device, split: str) -> Iterator[dict[str, Tensor]]:
    """The batches of a whole split that belong to this process, in order, on the device.

    There is no augmentation. The data module must have the split, see :func:`has_split`.
    """
    data = data_of(trainer)
    for batch in data.evaluation_dataloader(getattr(data, split)):
        batch = data.on_before_batch_transfer(batch, 0)
        batch = data.transfer_batch_to_device(batch, device, 0)
        yield data.on_after_batch_transfer(batch, 0)
