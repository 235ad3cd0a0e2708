"""The private parts of Lightning that lebm uses, each with its reason.

No other file of lebm uses one, except in methods of derived classes. Each has a test in
``tests/run/test_lightning_private.py``, which fails if a release of Lightning changes it.
"""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.strategies import Strategy


def accumulating(trainer: Trainer) -> bool:
    """Return whether the last batch did not end a training step; Lightning has no public method for this."""
    return trainer.fit_loop._should_accumulate()


def inside_epoch(trainer: Trainer) -> bool:
    """Return whether the last batch ended a training step, but not its epoch.

    A run may stop there. Between the batches of one step there are gradients, which checkpoints do not hold,
    and at the end of an epoch validation comes first.
    """
    loop = trainer.fit_loop.epoch_loop
    return not (loop._should_accumulate() or loop._num_ready_batches_reached())


def stops_early(trainer: Trainer) -> bool:
    """Return whether a callback requested the end, and ``min_epochs`` and ``min_steps`` allow it."""
    return trainer.should_stop and trainer.fit_loop._can_stop_early


def averages(trainer: Any) -> list[WeightAveraging]:
    """Return the active callbacks of a run that average its weights (EMA)."""
    return [c for c in trainer.callbacks if isinstance(c, WeightAveraging) and c._average_model is not None]


def average_of(callback: WeightAveraging) -> Any:
    """Return the averaged model, which the callback does not expose (Lightning's pull request 20545)."""
    return callback._average_model


def swap_average(callback: WeightAveraging, model: LightningModule) -> None:
    """Exchange the weights of a model and their average, as Lightning does around validation."""
    callback._swap_models(model)


def checkpoint_content(trainer: Trainer) -> dict[str, Any]:
    """Return the content of ``Trainer.save_checkpoint`` without waiting for other processes.

    Lightning waits for them even if they have died (issue 20187).
    """
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)


def save_last(callback: ModelCheckpoint, trainer: Trainer) -> None:
    """Write ``last.ckpt`` now, which Lightning writes only beside another checkpoint."""
    if not callback._should_skip_saving_checkpoint(trainer):
        callback._save_last_checkpoint(trainer, callback._monitor_candidates(trainer))


def syncs_layers(strategy: Strategy) -> bool:
    """Return whether BatchNorm exchanges its statistics: ``sync_batchnorm`` in the strategy."""
    return getattr(strategy, "_layer_sync", None) is not None


def reopen_epoch(loops: dict[str, Any]) -> None:
    """Continue inside an interrupted epoch, which Lightning has counted as finished.

    See also issue 14579 of Lightning.

    Args:
        loops: the counters of ``fit_loop`` in a checkpoint, changed in place.
    """
    epoch, batch = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    cut = batch["current"]["ready"] and not batch["is_last_batch"]
    if cut and epoch["current"]["processed"] == epoch["current"]["started"]:
        for counts in (epoch["total"], epoch["current"]):
            counts["processed"] = counts["completed"] = counts["started"] - 1
        for counts in (batch["total"], batch["current"]):  # as at the end of the batch
            counts["completed"] = counts["processed"] - 1
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def count_begun_epoch(trainer: Trainer) -> None:
    """Count the first epoch of a resumed run, if Lightning does not.

    After a checkpoint of the last step of an epoch, Lightning counts the next epoch as finished. Then the
    next such checkpoint has a wrong epoch number, and a run resumed from it uses the wrong data and noise.
    """
    loop = trainer.fit_loop
    progress: Any = loop.epoch_progress
    if loop.restarted_mid_epoch and progress.current.ready == progress.current.processed:
        progress.increment_ready()
        progress.increment_started()
