"""What the evaluation callbacks share: their base class, and access to the data of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torchmetrics import MeanMetric

from lebm.component import Component
from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel

Batch = Mapping[str, Tensor]

log = logging.getLogger("lebm.callbacks")


class EvaluationCallback(Callback, Component):
    """Base class of the callbacks that look at a validation or test pass.

    A pass calls :meth:`begin` once, :meth:`collect` for every batch, and :meth:`finish` once. ``begin`` and
    ``collect`` run inside batch hooks. There the averaged weights (EMA) are in use, whatever the order of the
    callbacks. So a callback draws from the model in these two methods only. Lightning's check before training
    calls none of them, and neither does a data loader after the first one, nor a pass that :meth:`wanted`
    leaves out. ``stage`` is ``"val"`` or ``"test"``, the prefix of every logged name. The callbacks of lebm
    refuse an argument out of range with a ValueError that names it.

    Attributes:
        every_n_epochs: epochs between the passes in training that are wanted; with ``None`` only ``validate``
            and ``test`` are.
        first_batch: whether :meth:`collect` has the first batch of the pass.
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

    every_n_epochs: int | None = 1
    first_batch = True
    _open = False

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self.protocol: dict[str, Any] = {}

    def check(self, trainer: Trainer, model: LatentModel, batch: Batch) -> None:
        """Refuse a model or data that cannot be measured, in every pass, so before training has ended."""

    def wanted(self, trainer: Trainer, stage: str) -> bool:
        """Whether the callback acts in the pass that begins; every process must give the same answer."""
        every = self.every_n_epochs
        return not fitting(trainer) or (every is not None and (trainer.current_epoch + 1) % every == 0)

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        """Before the first batch of a pass, with that batch already on the device."""

    def collect(self, trainer: Trainer, model: LatentModel, stage: str, outputs: Batch, batch: Batch) -> None:
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
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0 and dataloader_idx == 0 and not trainer.sanity_checking:
            if "figures" not in vars(self):
                raise UserError(
                    f"{type(self).__name__}.__init__ must call super().__init__() before anything else"
                )
            self.check(trainer, pl_module, batch)
            self._open = self.wanted(trainer, _stage(trainer))
            self.first_batch = True
            if self._open:
                self.begin(trainer, pl_module, _stage(trainer), batch)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._open and dataloader_idx == 0:
            self.collect(trainer, pl_module, _stage(trainer), outputs, batch)
            self.first_batch = False

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self._open:
            self._open = False
            self.finish(trainer, pl_module, _stage(trainer))

    on_test_batch_start = on_validation_batch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end


def _stage(trainer: Trainer) -> str:
    return "test" if trainer.testing else "val"


def fitting(trainer: Trainer) -> bool:
    """Whether the pass belongs to a training, and not to ``validate`` or ``test``."""
    return trainer.state.fn == TrainerFn.FITTING


def at_least(least: int, **numbers: int | None) -> None:
    """Refuse arguments below ``least``, by their names, with a ValueError; ``None`` is accepted."""
    for name, value in numbers.items():
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")


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
    """The batches of a split, see :func:`has_split`, that belong to this process, in order, on the device.

    There is no augmentation.
    """
    data = data_of(trainer)
    for batch in data.evaluation_dataloader(getattr(data, split)):
        batch = data.on_before_batch_transfer(batch, 0)
        batch = data.transfer_batch_to_device(batch, device, 0)
        yield data.on_after_batch_transfer(batch, 0)
