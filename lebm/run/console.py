"""What training prints: the parameters of the parts once, then one line of progress."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary, ProgressBar
from rich.console import Console
from rich.live import Live
from rich.text import Text
from torch import Tensor

__all__ = ["PartSizes", "Progress"]

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
        """Print the two lines; the arguments are those of Lightning's method."""
        columns = dict(summary_data)
        sizes = zip(columns["Name"], columns["Params"], strict=True)
        parts = [f"{name} {size.strip()}" for name, size in sizes if size.strip() != "0"]
        fixed = total_parameters - trainable_parameters
        print(f"lebm: parameters per part: {', '.join(parts) or 'none'}")
        print(
            f"lebm: parameters in all: {total_parameters:,}" + (f", {fixed:,} not trained" if fixed else "")
        )


class Progress(ProgressBar):
    """One line with the loss, the steps per second, the time to the end of the run and the chains' health.

    A terminal shows one line, which is redrawn. Elsewhere, as in a log file, a line is printed every
    30 seconds, and one when training ends. A value of health that has always been 0 is not shown. Only the
    first process prints.
    """

    HEALTH = {"displacement": "move", "gradient_norm": "grad"}

    def __init__(self) -> None:
        super().__init__()
        self._started = (0.0, 0)
        self._shown_at = 0.0
        self._live: Live | None = None
        self._enabled = True
        self._moving: set[str] = set()
        self._newest: Tensor | None = None  # shown until a loss is logged

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        shown = super().get_metrics(trainer, pl_module)
        shown = {
            name: value for name, value in shown.items() if name != "v_num" and not name.startswith("train/")
        }
        for name, value in trainer.callback_metrics.items():
            group, _, metric = name.removeprefix("mcmc/").rpartition("/")
            if name.startswith("mcmc/") and metric in self.HEALTH:
                if value:
                    self._moving.add(name)
                if name in self._moving:
                    shown[f"{group}-{self.HEALTH[metric]}"] = round(float(value), 2)
        left = self._time_left(trainer)
        if left is not None:
            shown["left"] = left
        return shown

    def line(self, trainer: Trainer, pl_module: LightningModule, validation: str = "") -> str:
        """The state of a training in at most 80 columns; what has no room at the right is left out."""
        metrics = self.get_metrics(trainer, pl_module)
        total, rate = trainer.estimated_stepping_batches, self._rate(trainer)
        epochs = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
        loss = metrics.pop("loss", self._newest)
        pieces = [
            f"epoch {trainer.fit_loop.epoch_progress.current.ready}{epochs}",
            validation or f"step {trainer.global_step}" + (f"/{total}" if total != float("inf") else ""),
            f"loss {float(loss):.4g}" if isinstance(loss, float | Tensor) else "",
            f"{rate:.3g} steps/s" if rate else "",
            f"{left} left" if (left := metrics.pop("left", None)) else "",
            *(f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, int | float)),
        ]
        text = ""
        for piece in filter(None, pieces):
            longer = f"{text}  {piece}".lstrip()
            if len(longer) < WIDTH:
                text = longer
        return text

    def _rate(self, trainer: Trainer) -> float:
        """Steps per second since training began here, its validations included."""
        since, first = self._started
        return (trainer.global_step - first) / max(time.monotonic() - since, 1e-9)

    def _time_left(self, trainer: Trainer) -> str | None:
        if not trainer.training or not (rate := self._rate(trainer)):
            return None
        total = trainer.estimated_stepping_batches
        if total == float("inf"):
            return None
        seconds = int((total - trainer.global_step) / rate)
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"

    # showing it

    def _due(self) -> bool:
        wait = PRINTED if self._live is None else REDRAWN
        return self._enabled and time.monotonic() - self._shown_at >= wait

    def _show(self, text: str) -> None:
        self._shown_at = time.monotonic()
        with contextlib.suppress(OSError):  # a full disk or a closed pipe must not end the training
            if self._live is None:
                print(text, flush=True)
            else:
                self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    def _open(self, keep: bool) -> None:
        """Begin a line; in a terminal ``keep`` says whether its last state stays."""
        self._shown_at = time.monotonic()
        console = Console(file=sys.stdout)
        if self._enabled and self._live is None and console.is_terminal and not console.is_dumb_terminal:
            # other prints appear above the line
            self._live = Live(console=console, auto_refresh=False, transient=not keep)
            self._live.start()

    def _close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def print(self, *args: Any, **kwargs: Any) -> None:
        if self._enabled:
            print(*args, **kwargs)

    # Lightning's hooks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = (time.monotonic(), trainer.global_step)
        self._open(keep=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if isinstance(outputs, dict) and isinstance(loss := outputs.get("loss"), Tensor):
            self._newest = loss * trainer.accumulate_grad_batches  # Lightning has divided it
        if self._due():
            self._show(self.line(trainer, pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._enabled:
            self._show(self.line(trainer, pl_module))
        self._close()

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
            text = f"validation {batch_idx + 1}/{self._batches(trainer.num_val_batches, dataloader_idx)}"
            training = trainer.state.fn == "fit"
            self._show(self.line(trainer, pl_module, text) if training else text)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            self._open(keep=False)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            self._close()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._open(keep=False)

    on_predict_start = on_test_start

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._due():
            kind, total = "prediction", trainer.num_predict_batches
            if trainer.testing:
                kind, total = "test", trainer.num_test_batches
            self._show(f"{kind} {batch_idx + 1}/{self._batches(total, dataloader_idx)}")

    on_predict_batch_end = on_test_batch_end

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    on_predict_epoch_end = on_test_epoch_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    @staticmethod
    def _batches(totals: Any, loader: int) -> str:
        total = totals[loader] if isinstance(totals, list) else totals
        return f"{total} batches"
