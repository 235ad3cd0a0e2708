"""The callbacks of every run besides those of its recipe: checkpoints, stored recipe, predictions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
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
from lebm.estimators.stage_end import averages
from lebm.files import replaced, write_text
from lebm.run.preemption import Preempted, inside_epoch
from lebm.run.wandb_run import searchable

__all__ = ["RunCheckpoint", "SameShape", "SaveConfig", "SavePredictions", "ShortRun"]

log = logging.getLogger("lebm.cli")


class RunCheckpoint(ModelCheckpoint):
    """Keeps the newest checkpoint and ``last.ckpt``.

    It writes them periodically, at the end, and if the run is interrupted or fails.

    Args:
        run_dir: the run folder; the files are in its ``checkpoints/``.
        every_n_train_steps: steps between checkpoints; the end of every epoch if ``None``.
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

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the stored state, but only paths of ``.ckpt`` files in this run's folder.

        Lightning removes the file of such a path when it writes the next one.
        """
        state = {**state_dict}
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[name] = state[name] if self._is_own(state.get(name)) else ""
        models = state.get("best_k_models")
        models = models.items() if isinstance(models, dict) else ()
        state["best_k_models"] = {path: score for path, score in models if self._is_own(path)}
        state.setdefault("best_model_score", None)
        state.setdefault("kth_value", self.kth_value)
        super().load_state_dict(state)

    def _is_own(self, path: Any) -> bool:
        if not isinstance(path, str) or not path.endswith(".ckpt") or "\0" in path:
            return False
        assert self.dirpath is not None
        return Path(path).is_file() and Path(path).resolve().parent == Path(self.dirpath).resolve()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Write the checkpoint that is due, and that of a run which stops inside an epoch.

        Lightning takes such an epoch for finished: it would average weights and stop early at an end that is
        none.
        """
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
        last |= trainer.global_step == trainer.max_steps
        last |= trainer.should_stop and trainer.fit_loop._can_stop_early
        if last and not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

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
        if batches.ready != whole or trainer.fit_loop._should_accumulate():
            step = trainer.global_step + 1
            log.warning("stopped inside step %d; --resume goes on from the last checkpoint", step)
            return
        for average in averages(trainer):
            if trainer.validating and not all(map(torch.equal, pl_module.parameters(), self._weights)):
                average._swap_models(pl_module)  # validation was using the averages
            average.on_train_batch_end(trainer, pl_module, None, None, 0)  # unless it has seen this step
        if trainer.world_size == 1 or isinstance(exception, Preempted):
            super().on_exception(trainer, pl_module, exception)
        elif (
            trainer.is_global_zero
            and isinstance(trainer.strategy, DDPStrategy)
            and self._should_save_on_exception(trainer)
        ):
            self._save_alone(trainer)

    def _save_alone(self, trainer: Trainer) -> None:
        """Save without the other processes, which may be dead or may wait somewhere else.

        Every process holds the same weights.
        """
        assert self.dirpath is not None
        try:
            content = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            trainer.strategy.checkpoint_io.save_checkpoint(content, Path(self.dirpath) / "last.ckpt")
        except Exception as error:  # for example, chains were not gathered; the periodic checkpoint remains
            log.warning("no checkpoint of step %d: %s; the last one is kept", trainer.global_step, error)


class SaveConfig(SaveConfigCallback):
    """Writes the resolved recipe of a training run to ``config.yaml`` in the run folder and to the loggers.

    Lightning's callback writes into the log folder, and fails if a file of that name exists. With Weights &
    Biases that happens in every second run. It also writes before a checkpoint is read. Here a resumed run
    that is refused keeps its recipe.

    A path of local data becomes absolute, so that the run finds its data from every folder."""

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
        """Compare the two shapes, if both are known.

        Raises:
            UserError: with both shapes and both keys.
        """
        likelihood = pl_module.observation_model if isinstance(pl_module, LatentModel) else None
        made = None if likelihood is None else getattr(likelihood.generator, "out_shape", None)
        read = getattr(trainer.datamodule, "image_shape", None)  # type: ignore[attr-defined]
        if made is not None and read is not None and tuple(made) != tuple(read):
            raise UserError(
                f"the generator makes images of {_by(made)} and the data are {_by(read)}: "
                "change image_size or channels of the data, or the generator's out_shape"
            )


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


class ShortRun(Callback):
    """Lets a run that ends before the first logging step log about ten times. Other runs do not change."""

    POINTS = 10

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shorten ``log_every_n_steps`` if the whole run has fewer steps."""
        steps = trainer.estimated_stepping_batches
        if steps < trainer.log_every_n_steps:  # type: ignore[attr-defined]
            trainer.log_every_n_steps = max(1, int(steps) // self.POINTS)  # type: ignore[attr-defined]


class SavePredictions(Callback):
    """Collects latents and anomaly scores, and writes one ``.npz`` file per process.

    Args:
        target: the file; with several processes the rank follows its stem.
    """

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
        import torch

        if trainer.world_size > 1:
            self.target = self.target.with_name(f"{self.target.stem}-{trainer.global_rank}.npz")
        columns: dict[str, Any] = {name: torch.cat(parts).numpy() for name, parts in self._rows.items()}
        with replaced(self.target) as unfinished, unfinished.open("wb") as file:
            numpy.savez(file, **columns)
