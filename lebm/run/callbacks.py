"""Callbacks of every run: checkpoints, stored recipe, signals and progress."""

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
from rich import get_console
from rich.live import Live
from rich.text import Text
from torch import Tensor

from lebm.callbacks.divergence import DivergenceError
from lebm.data.sources import located
from lebm.errors import CheckpointWriteError
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
from lebm.run.loggers import searchable

log = logging.getLogger("lebm.cli")


class Preempted(SystemExit):
    """The request of a signal to stop the run, with the exit status 128 plus its number."""


class Preemption(Callback):
    """A callback that ends training at the next step after Ctrl-C, SIGTERM or SIGUSR1.

    A second Ctrl-C does not wait. The signal handler only stores the number, because Lightning's handler of
    SIGTERM communicates inside the handler. The processes compare their numbers after every step, so a signal
    to one process stops all after the same step.
    """

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
            # A shell starts background jobs with SIGINT ignored.
            wanted = [n for n in self.SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in wanted}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if inside_epoch(trainer):
            self._leave_if_asked(trainer, pl_module)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if self._before and not (trainer.sanity_checking or accumulating(trainer)):
            self._leave_if_asked(trainer, pl_module)

    def _leave_if_asked(self, trainer: Trainer, model: LightningModule) -> None:
        number = self.received
        if trainer.world_size > 1:
            asked = torch.tensor(number, device=model.device)
            torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
            number = int(asked)
        if number:
            raise Preempted(128 + number)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class RunCheckpoint(ModelCheckpoint):
    """A callback that keeps the newest checkpoint and ``last.ckpt`` in ``RUN/checkpoints/``.

    It writes every ``every_n_train_steps`` steps or at the end of every epoch, at the end of the run, and if
    the run is interrupted or fails.
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
        self._weights: list[Tensor] = []  # the trained weights while validation uses averages

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Write the checkpoint that is due, and the last one of a run that stops inside an epoch."""
        if inside_epoch(trainer):
            super().on_train_batch_end(trainer, pl_module, *args)
            self._save_if_last(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the checkpoint of the epoch, and the one due at its last step."""
        super().on_train_batch_end(trainer, pl_module, None, None, 0)
        super().on_train_epoch_end(trainer, pl_module)
        self._save_if_last(trainer, trainer.current_epoch + 1 == trainer.max_epochs)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write nothing, because the averaged weights have replaced the trained weights."""

    def _save_if_last(self, trainer: Trainer, last: bool = False) -> None:
        if last or trainer.global_step == trainer.max_steps or stops_early(trainer):
            save_last(self, trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._weights = [p.detach().clone() for p in pl_module.parameters()] if averages(trainer) else []

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write a checkpoint of the last step, unless the run stopped inside a step.

        Inside a step, chains may have moved while the weights have not. After the last step of an epoch, the
        resumed run would omit the rest of the epoch end.
        """
        if isinstance(exception, DivergenceError | CheckpointWriteError):
            return  # a diverged run must keep its healthy checkpoint; or the disk is full
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.total
        whole = batches.processed if inside_epoch(trainer) else batches.completed
        if batches.ready != whole or accumulating(trainer):
            step = trainer.global_step + 1
            log.warning("stopped inside step %d; --resume continues from the last checkpoint", step)
            return
        for average in averages(trainer):
            if trainer.validating and not all(map(torch.equal, pl_module.parameters(), self._weights)):
                swap_average(average, pl_module)  # validation was using the averages
            average.on_train_batch_end(trainer, pl_module, None, None, 0)  # no effect for a seen step
        if trainer.world_size == 1 or isinstance(exception, Preempted):
            super().on_exception(trainer, pl_module, exception)
            return
        # without the other processes, which hold equal weights and may be dead or waiting
        alone = trainer.is_global_zero and isinstance(trainer.strategy, DDPStrategy)
        if alone and self._should_save_on_exception(trainer):
            try:
                content = checkpoint_content(trainer)
                target = Path(self.dirpath) / "last.ckpt"  # type: ignore[arg-type]
                trainer.strategy.checkpoint_io.save_checkpoint(content, target)
            except Exception as error:  # for example, chains were not gathered
                log.warning("no checkpoint of step %d: %s; the last one is kept", trainer.global_step, error)


class SaveConfig(SaveConfigCallback):
    """A callback that writes the resolved recipe to ``config.yaml`` in the run folder and to the loggers.

    It writes when training starts, after Lightning has read a checkpoint, so a rejected resumption keeps its
    recipe. Paths of local data become absolute, so the run finds its data from every folder.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write nothing; the file is written when training starts."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().setup(trainer, pl_module, "fit")

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        config = self.config.clone()
        arguments = (config.get("data") or {}).get("init_args") or {}
        if isinstance(arguments.get("path"), str):
            arguments["path"] = located(arguments["path"])
        # The parser has checked these values, and a second check is slow.
        text = self.parser.dump(config, skip_unset=False, skip_validation=True)
        target = Path(trainer.default_root_dir) / "config.yaml"
        write_text(target, text)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("config", f"```yaml\n{text}\n```")
            else:
                content = yaml.safe_load(text)
                logger.log_hyperparams(searchable(content) if isinstance(logger, WandbLogger) else content)


class ShortRun(Callback):
    """A callback that lets a run shorter than the logging interval log about ten times."""

    POINTS = 10

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        steps = trainer.estimated_stepping_batches
        if steps < trainer.log_every_n_steps:  # type: ignore[attr-defined]
            trainer.log_every_n_steps = max(1, int(steps) // self.POINTS)  # type: ignore[attr-defined]


WIDTH = 80  # columns
REDRAWN = 0.2  # seconds between two states in a terminal
PRINTED = 30.0  # seconds between two lines in a file


class PartSizes(ModelSummary):
    """A summary of the number of parameters per part and in total, in two lines."""

    @staticmethod
    def summarize(
        summary_data: Any, total_parameters: int, trainable_parameters: int, *args: Any, **kwargs: Any
    ) -> None:
        columns = dict(summary_data)
        sizes = zip(columns["Name"], columns["Params"], strict=True)
        parts = [f"{name} {size.strip()}" for name, size in sizes if size.strip() != "0"]
        fixed = total_parameters - trainable_parameters
        rest = f", {fixed:,} not trained" if fixed else ""
        print(f"lebm: parameters per part: {', '.join(parts) or 'none'}")
        print(f"lebm: parameters in all: {total_parameters:,}{rest}")


class Progress(ProgressBar):
    """A line with the loss, the steps per second, the remaining time and the health of the chains.

    A terminal shows one line, redrawn below other output. Elsewhere, as in a log file, a line is printed
    every 30 seconds and at the end. A health value that has always been 0 is omitted. Only the first process
    prints.
    """

    HEALTH = {"displacement": "move", "gradient_norm": "grad"}

    def __init__(self) -> None:
        super().__init__()
        self.is_enabled = True  # read by LightningModule.print
        self._started = (0.0, 0)
        self._shown_at = 0.0
        self._live: Live | None = None  # in a terminal
        self._moving: set[str] = set()
        self._loss: Tensor | None = None  # of the last step

    def enable(self) -> None:
        self.is_enabled = True

    def disable(self) -> None:
        self.is_enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        with contextlib.suppress(OSError):  # a full disk or a closed pipe does not end training
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
        """Return the state of the training in at most 80 columns; items that do not fit are omitted."""
        since, first = self._started
        rate = (trainer.global_step - first) / max(time.monotonic() - since, 1e-9)  # includes validation
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
        if get_console().is_interactive:  # Lightning's console too, whose tables appear above
            self._live = Live(auto_refresh=False, transient=stage != "fit")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = (time.monotonic(), trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
        if isinstance(outputs, dict) and isinstance(loss := outputs.get("loss"), Tensor):
            self._loss = loss * trainer.accumulate_grad_batches  # undoes Lightning's division
        if self._due():
            self._show(self.line(trainer, pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.is_enabled:
            self._show(self.line(trainer, pl_module))
        self.teardown()

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._due() and not trainer.sanity_checking:
            what = "test" if trainer.testing else "validation"
            totals = trainer.num_test_batches if trainer.testing else trainer.num_val_batches
            text = f"{what} {batch_idx + 1}/{totals[dataloader_idx]} batches"
            self._show(self.line(trainer, pl_module, text) if trainer.state.fn == "fit" else text)

    on_test_batch_end = on_validation_batch_end

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        if self._live is not None:
            self._live.stop()

    on_exception = teardown
