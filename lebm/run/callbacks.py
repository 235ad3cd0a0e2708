"""The callbacks of every run besides those of its recipe: checkpoints, stored recipe, signals, progress."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ModelSummary, ProgressBar
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import RunningStage
from rich import get_console
from rich.live import Live
from rich.text import Text
from torch import Tensor

from lebm.callbacks.divergence import DivergenceError
from lebm.data.sources import located
from lebm.errors import CheckpointWriteError, UserError
from lebm.estimators.latent_model import LatentModel
from lebm.files import write_text
from lebm.lightning_private import (
    accumulating,
    averages,
    checkpoint_content,
    inside_epoch,
    save_last,
    stops_early,
    swap_average,
)
from lebm.run.wandb_run import searchable

log = logging.getLogger("lebm.cli")


class Preempted(SystemExit):
    """The signal ``number`` has asked the run to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class Preemption(Callback):
    """Ends training at the next step after Ctrl-C, SIGTERM or SIGUSR1; a second Ctrl-C does not wait.

    Lightning's handler of SIGTERM talks to the other processes from inside the signal handler. Here it only
    stores the number, and the processes compare their numbers after every step: a signal to one of them is
    enough, and all stop after the same step."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[signal.Signals, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            # A shell starts a job in the background with SIGINT ignored.
            wanted = [n for n in self.SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in wanted}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        if inside_epoch(trainer):
            self._leave_if_asked(trainer, pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        if self._before and not (trainer.sanity_checking or accumulating(trainer)):
            self._leave_if_asked(trainer, pl_module)

    def _leave_if_asked(self, trainer: Trainer, model: LightningModule) -> None:
        number = self.received
        if trainer.world_size > 1:
            asked = torch.tensor(number, device=model.device)
            torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
            number = int(asked)
        if number:
            raise Preempted(number)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


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


WIDTH = 80  # columns of a line, at most
REDRAWN = 0.2  # seconds between two states of the line in a terminal
PRINTED = 30.0  # seconds between two lines in a file


class PartSizes(ModelSummary):
    """Prints the number of parameters per part and in all, in two lines; a part without any is left out."""

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        columns = dict(summary_data)
        sizes = zip(columns["Name"], columns["Params"], strict=True)
        parts = [f"{name} {size.strip()}" for name, size in sizes if size.strip() != "0"]
        fixed = total_parameters - trainable_parameters
        rest = f", {fixed:,} not trained" if fixed else ""
        print(f"lebm: parameters per part: {', '.join(parts) or 'none'}")
        print(f"lebm: parameters in all: {total_parameters:,}{rest}")


class Progress(ProgressBar):
    """One line with the loss, the steps per second, the time to the end of the run and the chains' health.

    A terminal shows one line, which is redrawn, and what else is printed above it. Elsewhere, as in a log
    file, a line is printed every 30 seconds, and one when training ends. A value of health that has always
    been 0 is not shown. Only the first process prints.
    """

    HEALTH = {"displacement": "move", "gradient_norm": "grad"}

    def __init__(self) -> None:
        super().__init__()
        self.is_enabled = True  # LightningModule.print asks for it
        self._started = (0.0, 0)
        self._shown_at = 0.0
        self._live: Live | None = None  # in a terminal
        self._moving: set[str] = set()
        self._loss: Tensor | None = None  # of the newest step

    def enable(self) -> None:
        self.is_enabled = True

    def disable(self) -> None:
        self.is_enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        with contextlib.suppress(OSError):  # a full disk or a closed pipe must not end the training
            print(*args, **kwargs)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        hidden, metrics = ("v_num", "loss", "train"), super().get_metrics(trainer, pl_module).items()
        shown = {name: value for name, value in metrics if name.partition("/")[0] not in hidden}
        for name, value in trainer.callback_metrics.items():
            group, _, metric = name.removeprefix("mcmc/").rpartition("/")
            if name.startswith("mcmc/") and metric in self.HEALTH:
                if value:
                    self._moving.add(name)
                if name in self._moving:
                    shown[f"{group}-{self.HEALTH[metric]}"] = round(float(value), 2)
        return shown

    def line(self, trainer: Trainer, pl_module: LightningModule, validation: str = "") -> str:
        """The state of a training in at most 80 columns; what has no room at the right is left out."""
        since, first = self._started
        rate = (trainer.global_step - first) / max(time.monotonic() - since, 1e-9)  # validations included
        total = trainer.estimated_stepping_batches
        ends = total != float("inf")
        epochs = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
        metrics = self.get_metrics(trainer, pl_module)
        pieces = [
            f"epoch {trainer.fit_loop.epoch_progress.current.ready}{epochs}",
            validation or f"step {trainer.global_step}" + (f"/{total}" if ends else ""),
            "" if self._loss is None else f"loss {float(self._loss):.4g}",
            f"{rate:.3g} steps/s" if rate else "",
            f"{timedelta(seconds=int((total - trainer.global_step) / rate))} left" if ends and rate else "",
            *(f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, int | float)),
        ]
        text = ""
        for piece in filter(None, pieces):
            longer = f"{text}  {piece}".lstrip()
            if len(longer) < WIDTH:
                text = longer
        return text

    def _due(self) -> bool:
        wait = PRINTED if self._live is None else REDRAWN
        return self.is_enabled and time.monotonic() - self._shown_at >= wait

    def _show(self, text: str) -> None:
        self._shown_at = time.monotonic()
        if self._live is None:
            self.print(text, flush=True)
        else:
            self._live.start()
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._shown_at = time.monotonic()
        if get_console().is_interactive:  # the console whose tables appear above the line, Lightning's too
            self._live = Live(auto_refresh=False, transient=stage != "fit")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = (time.monotonic(), trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if isinstance(outputs, dict) and isinstance(loss := outputs.get("loss"), Tensor):
            self._loss = loss * trainer.accumulate_grad_batches  # Lightning has divided it
        if self._due():
            self._show(self.line(trainer, pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.is_enabled:
            self._show(self.line(trainer, pl_module))
        self.teardown()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._due() and not trainer.sanity_checking:
            what, totals = {
                RunningStage.TESTING: ("test", trainer.num_test_batches),
                RunningStage.VALIDATING: ("validation", trainer.num_val_batches),
            }[trainer.state.stage]  # type: ignore[index]
            text = f"{what} {batch_idx + 1}/{totals[dataloader_idx]} batches"
            self._show(self.line(trainer, pl_module, text) if trainer.state.fn == "fit" else text)

    on_test_batch_end = on_validation_batch_end

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        if self._live is not None:
            self._live.stop()

    on_exception = teardown
