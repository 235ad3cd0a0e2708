"""The callbacks of every run besides those of its recipe: checkpoints, stored recipe, predictions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from lebm.callbacks.divergence import DivergenceError
from lebm.data.sources import located
from lebm.errors import CheckpointWriteError, UserError
from lebm.estimators.latent_model import LatentModel
from lebm.files import replaced, write_text
from lebm.lightning_private import (
    accumulating,
    averages,
    checkpoint_content,
    inside_epoch,
    save_last,
    stops_early,
    swap_average,
)
from lebm.run.preemption import Preempted
from lebm.run.wandb_run import searchable

log = logging.getLogger("lebm.cli")


class RunCheckpoint(ModelCheckpoint):
    """Keeps the newest checkpoint and ``last.ckpt`` in ``RUN/checkpoints/``.

    It writes them every ``every_n_train_steps`` steps or at the end of every epoch, at the end, and if the
    run is interrupted or fails.
    """

    def __init__(self, run_dir: str | Path, every_n_train_steps: int | None = None) -> None:
        super().__init__(
            dirpath=Path(run_dir) / "checkpoints",
            filename="step={step:08d}",
            auto_insert_metric_name=False,
            save_last=True,
            save_on_exception=True,
            every_n_train_steps=every_n_train_steps,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self._weights: list[Tensor] = []  # while validation uses averages

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Write the checkpoint that is due, and that of a run which stops inside an epoch."""
        if inside_epoch(trainer):
            super().on_train_batch_end(trainer, pl_module, *args)
            self._save_if_last(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the checkpoint of the epoch, and the one that was due at its last step."""
        super().on_train_batch_end(trainer, pl_module, None, None, 0)
        super().on_train_epoch_end(trainer, pl_module)
        self._save_if_last(trainer, trainer.current_epoch + 1 == trainer.max_epochs)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: the averaged weights have replaced those that training would go on with."""

    def _save_if_last(self, trainer: Trainer, last: bool = False) -> None:
        if last or trainer.global_step == trainer.max_steps or stops_early(trainer):
            save_last(self, trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._weights = [p.detach().clone() for p in pl_module.parameters()] if averages(trainer) else []

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write a checkpoint of the last step, unless the run was inside one.

        Inside a step the chains may have moved while the weights have not. After the last step of an epoch,
        the resumed run would leave out what had yet to happen at its end.
        """
        if isinstance(exception, DivergenceError | CheckpointWriteError):
            return  # these weights must not replace the last healthy ones, or the disk is full
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.total
        whole = batches.processed if inside_epoch(trainer) else batches.completed
        if batches.ready != whole or accumulating(trainer):
            step = trainer.global_step + 1
            log.warning("stopped inside step %d; --resume goes on from the last checkpoint", step)
            return
        for average in averages(trainer):
            if trainer.validating and not all(map(torch.equal, pl_module.parameters(), self._weights)):
                swap_average(average, pl_module)  # validation was using the averages
            average.on_train_batch_end(trainer, pl_module, None, None, 0)  # unless it has seen this step
        if trainer.world_size == 1 or isinstance(exception, Preempted):
            super().on_exception(trainer, pl_module, exception)
        elif isinstance(trainer.strategy, DDPStrategy) and self._should_save_on_exception(trainer):
            self._save_alone(trainer)

    def _save_alone(self, trainer: Trainer) -> None:
        """Save without the other processes, which hold the same weights and may be dead or wait elsewhere."""
        assert self.dirpath is not None
        if not trainer.is_global_zero:
            return
        try:
            content = checkpoint_content(trainer)
            trainer.strategy.checkpoint_io.save_checkpoint(content, Path(self.dirpath) / "last.ckpt")
        except Exception as error:  # for example, chains were not gathered; the periodic checkpoint remains
            log.warning("no checkpoint of step %d: %s; the last one is kept", trainer.global_step, error)


class SaveConfig(SaveConfigCallback):
    """Writes the resolved recipe of a training run to ``config.yaml`` in the run folder and to the loggers.

    Lightning's callback writes before a checkpoint is read; here a resumed run that is refused keeps its
    recipe. A path of local data becomes absolute, so that the run finds its data from every folder."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Nothing; the file is written when training starts."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().setup(trainer, pl_module, "fit")

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        config = self.config.clone()
        arguments = (config.get("data") or {}).get("init_args") or {}
        if isinstance(arguments.get("path"), str):
            arguments["path"] = located(arguments["path"])
        # The parser has checked these values; a second check would take four times as long as the text.
        text = self.parser.dump(config, skip_unset=False, skip_validation=True)
        target = Path(trainer.default_root_dir) / "config.yaml"
        write_text(target, text)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("config", f"```yaml\n{text}\n```")
            else:
                content = yaml.safe_load(text)
                logger.log_hyperparams(searchable(content) if isinstance(logger, WandbLogger) else content)


class SameShape(Callback):
    """Refuses images of another size than the model makes, before the run uses them."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        likelihood = pl_module.observation_model if isinstance(pl_module, LatentModel) else None
        made = None if likelihood is None else getattr(likelihood.generator, "out_shape", None)
        read = getattr(trainer.datamodule, "image_shape", None)  # type: ignore[attr-defined]
        if made is not None and read is not None and tuple(made) != tuple(read):
            ours, theirs = (" x ".join(map(str, shape)) for shape in (made, read))
            raise UserError(
                f"the generator makes images of {ours} and the data are {theirs}: "
                "change image_size or channels of the data, or the generator's out_shape"
            )


class ShortRun(Callback):
    """Lets a run that ends before the first logging step log about ten times. Other runs do not change."""

    POINTS = 10

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shorten ``log_every_n_steps`` if the whole run has fewer steps."""
        steps = trainer.estimated_stepping_batches
        if steps < trainer.log_every_n_steps:  # type: ignore[attr-defined]
            trainer.log_every_n_steps = max(1, int(steps) // self.POINTS)  # type: ignore[attr-defined]


class SavePredictions(Callback):
    """Collects latents and anomaly scores, and writes one ``.npz`` file per process, named by its rank."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self._rows: dict[str, list[Any]] = {}

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        columns = {
            "index": batch["index"],
            "label": batch.get("label"),
            "z": outputs["z"],
            "anomaly_score": outputs["anomaly_score"],
        }
        for name, value in columns.items():
            if value is not None:
                self._rows.setdefault(name, []).append(value.detach().cpu())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        import numpy

        if trainer.world_size > 1:
            self.target = self.target.with_name(f"{self.target.stem}-{trainer.global_rank}.npz")
        columns: dict[str, Any] = {name: torch.cat(parts).numpy() for name, parts in self._rows.items()}
        with replaced(self.target) as unfinished, unfinished.open("wb") as file:
            numpy.savez(file, **columns)
