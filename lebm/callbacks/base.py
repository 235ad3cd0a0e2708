"""The base class of the evaluation callbacks, and access to the data of a run."""

import logging
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from lebm.component import Component
from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel

Batch = Mapping[str, Tensor]

LOWER_STEP = "look at mcmc/{0}/nonfinite and lower the {0} sampler's step size"

log = logging.getLogger("lebm.callbacks")


class EvaluationCallback(Callback, Component):
    """Base class of the callbacks that evaluate a validation or test pass.

    A pass calls :meth:`begin` once, :meth:`collect` for every batch, and :meth:`finish` once. Use the model
    in ``begin`` and ``collect`` only, because these run inside batch hooks, in which averaged weights (EMA)
    are in use for any order of callbacks. Lightning's check before training, data loaders after the first
    one, and passes that :meth:`wanted` leaves out call none of them. Metrics of torchmetrics in attributes
    are moved to the device and reset when a pass begins. ``stage`` is ``"val"`` or ``"test"``, the prefix of
    every logged name. The callbacks of lebm raise a ValueError for an argument out of range.

    Attributes:
        every_n_epochs: number of epochs between the passes in training; only ``validate`` and ``test`` passes
            if ``None``.
        first_batch: whether the batch of :meth:`collect` is the first batch of the pass.
        figures: last logged values by name, in double precision, equal on all processes.
        protocol: settings of the measurement, as plain values, for the summary of the run.

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
    _measured = ""  # the stage of the pass, if the callback acts in it

    @cached_property
    def figures(self) -> dict[str, float]:
        return {}

    @cached_property
    def protocol(self) -> dict[str, Any]:
        return {}

    def check(self, trainer: Trainer, model: LatentModel, batch: Batch) -> None:
        """Reject a model or data that cannot be measured, in every pass, so before training has ended."""

    def wanted(self, trainer: Trainer, stage: str) -> bool:
        """Return whether the callback acts in the pass that begins, equally on all processes."""
        every = self.every_n_epochs
        return not fitting(trainer) or (every is not None and (trainer.current_epoch + 1) % every == 0)

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        """Prepare a pass, before its first batch, which is already on the device."""

    def collect(self, trainer: Trainer, model: LatentModel, stage: str, outputs: Batch, batch: Batch) -> None:
        """Process a batch; ``outputs`` is the result of the model's step.

        With several processes, a batch may have zero rows on a process.
        """

    def finish(self, trainer: Trainer, model: LatentModel, stage: str) -> None:
        """End the pass, on every process."""

    def report(self, model: LatentModel, values: Mapping[str, float]) -> None:
        """Log values that are equal on all processes, and store them in ``figures``."""
        self.figures.update(values)
        model.log_dict(dict(values), sync_dist=True)

    def output(self, outputs: Any, name: str) -> Tensor:
        """Return one entry of the outputs of a step.

        Raises:
            UserError: if the step of the model does not return this entry.
        """
        if not isinstance(outputs, Mapping) or name not in outputs:
            raise UserError(
                f"{type(self).__name__} needs the model's validation and test steps to return a dictionary"
                f" with {name!r}"
            )
        return outputs[name]

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0 and dataloader_idx == 0 and not trainer.sanity_checking:
            self.check(trainer, pl_module, batch)
            stage = "test" if trainer.testing else "val"
            self._measured = stage if self.wanted(trainer, stage) else ""
            self.first_batch = True
            if self._measured:
                for part in vars(self).values():
                    if isinstance(part, Metric):
                        part.to(pl_module.device).reset()
                self.begin(trainer, pl_module, stage, batch)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._measured and dataloader_idx == 0:
            self.collect(trainer, pl_module, self._measured, outputs, batch)
            self.first_batch = False

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if stage := self._measured:
            self._measured = ""
            self.finish(trainer, pl_module, stage)

    on_test_batch_start = on_validation_batch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end


def fitting(trainer: Trainer) -> bool:
    """Return whether the pass belongs to a training, not to ``validate`` or ``test``."""
    return trainer.state.fn == TrainerFn.FITTING


def double_mean(device: torch.device, nan_strategy: Literal["warn", "disable"] = "disable") -> MeanMetric:
    """Return a mean metric on a device, in double precision."""
    mean = MeanMetric(nan_strategy=nan_strategy).to(device)
    mean.set_dtype(torch.float64)  # last, because after a move the metric rounds inputs to single precision
    return mean


def data_of(trainer: Trainer) -> Any:
    """Return the data module of a run; ``None`` if the trainer has data loaders instead."""
    return getattr(trainer, "datamodule", None)  # Lightning sets the attribute only if there is a data module


def whole_split(trainer: Trainer, device: torch.device, split: str, who: str) -> Iterator[dict[str, Tensor]]:
    """Iterate over this process's batches of a split, in order, not augmented, for the callback ``who``."""
    data = data_of(trainer)
    if getattr(data, split, None) is None or not hasattr(data, "evaluation_dataloader"):
        raise UserError(f"{who}: the data module has no {split} split with an evaluation_dataloader")
    for batch in data.evaluation_dataloader(getattr(data, split)):
        batch = data.on_before_batch_transfer(batch, 0)
        batch = data.transfer_batch_to_device(batch, device, 0)
        yield data.on_after_batch_transfer(batch, 0)
