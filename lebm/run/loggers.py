"""Loggers of a run: ``metrics.csv`` and the chosen loggers; the content of a Weights & Biases run."""

import csv
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from lebm.extras import missing, need
from lebm.files import replaced
from lebm.run.folder import is_first_process

log = logging.getLogger("lebm.run")


class MetricsFile(Logger):
    """A logger that writes ``metrics.csv``, one row per logging call, and continues it on resumption.

    Rows of an earlier attempt from ``first_step`` on are dropped, because this attempt writes them again.
    """

    name, version = "metrics", ""  # type: ignore[assignment]

    def __init__(self, run_dir: str | Path, first_step: int = 0) -> None:
        super().__init__()
        self.path = Path(run_dir) / "metrics.csv"
        self.first_step = first_step
        self._columns: list[str] = []

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Log nothing, because ``config.yaml`` holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        row = {"step": step, **{key: float(value) for key, value in metrics.items()}}
        if not self._columns:
            # The last row of a killed run may lack its step.
            whole = (old for old in self._read() if (old.get("step") or "").isdigit())
            rows = [old for old in whole if int(old["step"]) < self.first_step]
            self._columns = list(dict.fromkeys(["step", "epoch", *(name for old in rows for name in old)]))
            self._rewrite(rows)
        if fresh := [name for name in row if name not in self._columns]:
            self._columns += fresh
            self._rewrite(self._read())
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _read(self) -> list[dict[str, str]]:
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        return list(csv.DictReader(text.splitlines()))

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        with replaced(self.path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)


class WandbRun(Callback):
    """A callback that stores the id of the Weights & Biases run, so a resumed run continues it."""

    def __init__(self) -> None:
        self.run_id: str | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and logger.version is not None:
                self.run_id = str(logger.version)

    def state_dict(self) -> dict[str, Any]:
        return {"run_id": self.run_id}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.run_id = self.run_id or state_dict.get("run_id")


def point_into(config: Any, run_dir: Path, wandb_id: str | None) -> None:
    """Let the loggers of a parsed recipe write into the run folder, before they are built.

    With ``log_model: true``, lebm logs the last checkpoint at the end; with ``all``, Lightning logs
    the other checkpoints too. Lightning rejects both offline, so such a run is offline by the ``mode`` of
    wandb. The Weights & Biases run ``wandb_id`` is continued.

    Raises:
        MissingExtraError: if the package of a logger is not installed.
    """
    for logger in config if isinstance(config, list) else [config]:
        path = logger.get("class_path", "") if hasattr(logger, "get") else ""
        arguments = logger.get("init_args") if path else None
        if arguments is None:
            continue
        for name, package in (("WandbLogger", "wandb"), ("TensorBoardLogger", "tensorboard")):
            if path.endswith(f".{name}"):
                need(package, f"trainer.logger: {name}")
        if "save_dir" in arguments and arguments["save_dir"] in (None, "", "."):
            # absolute, because the wandb process keeps its first working folder
            arguments["save_dir"] = str(run_dir.absolute())
        if not path.endswith(".WandbLogger"):
            continue
        if wandb_id is not None and arguments.get("id") is None and arguments.get("version") is None:
            arguments["id"] = wandb_id
        if arguments.get("log_model") is True:
            arguments["log_model"] = False
        if arguments.get("log_model") and arguments.get("offline"):
            arguments["offline"], arguments["mode"] = False, "offline"


def with_defaults(chosen: Any, run_dir: Path, first_step: int) -> list[Logger] | bool:
    """Return the loggers of a run: ``metrics.csv`` and the chosen loggers, or TensorBoard for ``None`` and
    ``True``. ``False`` switches off all loggers.
    """
    if chosen is False:
        return False
    loggers: list[Logger] = []
    if chosen is None or chosen is True:
        line = missing("tensorboard", "the log for TensorBoard beside metrics.csv")
        if line and is_first_process():
            log.warning("%s", line)
        elif not line:
            loggers = [TensorBoardLogger(str(run_dir), name="tensorboard", version="")]
    else:
        loggers = list(chosen) if isinstance(chosen, list | tuple) else [chosen]
    # first, because Lightning asks the first logger for the folder of the run
    return [MetricsFile(run_dir, first_step), *loggers]


def searchable(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resolved recipe as the config of a run: nested mappings, and callbacks by name.

    Example:
        >>> from lebm.run.loggers import searchable
        >>> searchable({"trainer": {"callbacks": [{"class_path": "lebm.callbacks.SampleGrid"}]}})
        {'trainer': {'callbacks': ['SampleGrid']}}
    """
    trainer = recipe.get("trainer")
    if not isinstance(trainer, Mapping) or not trainer.get("callbacks"):
        return dict(recipe)
    chosen = trainer["callbacks"]
    paths = [block.get("class_path") for block in (chosen if isinstance(chosen, list) else [chosen])]
    return {**recipe, "trainer": {**trainer, "callbacks": [str(path).rpartition(".")[2] for path in paths]}}


def with_ends(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return metrics as a run summary, with the ends of an interval below its value, without ``None``.

    Example:
        >>> from lebm.run.loggers import with_ends
        >>> with_ends({"test/nll": 2.0, "test/nll_low": 1.5, "test/nll_high": None, "loss_low": 1.0})
        {'test/nll': 2.0, 'test/nll/low': 1.5, 'loss_low': 1.0}
    """
    named = {}
    for name, value in metrics.items():
        base, _, end = name.rpartition("_")
        if value is not None:
            named[f"{base}/{end}" if end in ("low", "high") and base in metrics else name] = value
    return named
