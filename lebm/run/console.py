"""What training prints: the parameters of the parts once, then one line of progress."""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary, ProgressBar
from lightning.pytorch.trainer.states import RunningStage
from rich import get_console
from rich.live import Live
from rich.text import Text
from torch import Tensor

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
                RunningStage.PREDICTING: ("prediction", trainer.num_predict_batches),
                RunningStage.VALIDATING: ("validation", trainer.num_val_batches),
            }[trainer.state.stage]  # type: ignore[index]
            text = f"{what} {batch_idx + 1}/{totals[dataloader_idx]} batches"
            self._show(self.line(trainer, pl_module, text) if trainer.state.fn == "fit" else text)

    on_test_batch_end = on_validation_batch_end
    on_predict_batch_end = on_validation_batch_end

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        if self._live is not None:
            self._live.stop()

    on_exception = teardown
