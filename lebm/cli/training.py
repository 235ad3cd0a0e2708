"""Trains or evaluates what a recipe describes, and leaves a summary of how the run ended."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lebm.cli.common import fail, tell
from lebm.cli.failures import failure_status
from lebm.cli.starting import FinishedError, TrainingCLI
from lebm.config.request import Request
from lebm.files import remove_folder
from lebm.run import folder as runs
from lebm.run.callbacks import SavePredictions
from lebm.run.preemption import Preempted
from lebm.run.wandb_run import Model, with_ends

__all__ = ["quiet", "run"]

_NOTICES = (
    ".*does not have many workers.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*is smaller than the logging interval.*",
    ".*The dirpath has changed from.*",  # a run folder may be moved
    ".*LeafSpec.* is deprecated.*",
    ".*Total length of `list` across ranks is zero.*",  # the recipe asks for no validation
)


def run(request: Request) -> int:
    """Run the verb of a request and return the exit status; the run folder tells how it ended."""
    quiet()
    with contextlib.ExitStack() as held, _quiet_threads():
        return _run(request, held)


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
    """Keep a thread from printing that a file cannot be written.

    TensorBoard's thread hands its error to the next call of its writer, so this process fails with it."""
    before = threading.excepthook
    threading.excepthook = lambda end: None if isinstance(end.exc_value, OSError) else before(end)
    try:
        yield
    finally:
        threading.excepthook = before


def _run(request: Request, held: contextlib.ExitStack) -> int:
    verb = request.verb
    started = time.time()
    handler = signal.getsignal(signal.SIGINT)
    try:
        cli = TrainingCLI(request, held)
        cli.same_networks()
    except FinishedError as news:
        tell(f"lebm: {news}")
        return 0
    status, code = "failed", 1
    try:
        if runs.is_first_process():
            source = f", from {cli.ckpt_path}" if cli.ckpt_path else ""
            tell(f"lebm: {verb} in {cli.run_dir}{source}")
            for note in cli.notes:
                tell(f"lebm: {note}")
        _execute(cli, verb)
        status, code = "finished", 0
    except Preempted as stop:
        # the others leave quietly, because a launcher kills all as soon as one of them has failed
        status, code = "interrupted", 128 + stop.number if runs.is_first_process() else 0
    except SIGTERMException:
        status, code = "interrupted", 143
    except (KeyboardInterrupt, SystemExit):
        if cli.trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
        status, code = "interrupted", 130
    except Exception as error:
        code = failure_status(cli, error)
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning ignores it for good once it has seen one
        _leave(cli, verb, started, status)
    return code


def _execute(cli: TrainingCLI, verb: str) -> None:
    trainer, ckpt_path = cli.trainer, cli.ckpt_path
    if verb == "fit":
        trainer.fit(cli.model, cli.datamodule, ckpt_path=ckpt_path, weights_only=True)
    elif verb == "predict":
        trainer.callbacks.append(SavePredictions(cli.run_dir / "predictions.npz"))  # type: ignore[attr-defined]
        trainer.predict(
            cli.model, cli.datamodule, return_predictions=False, ckpt_path=ckpt_path, weights_only=True
        )
    else:
        getattr(trainer, verb)(cli.model, cli.datamodule, ckpt_path=ckpt_path, weights_only=True)
    # Lightning ends a run that was asked to stop without raising
    if trainer.state.status == TrainerStatus.INTERRUPTED:
        raise KeyboardInterrupt


def _leave(cli: TrainingCLI, verb: str, started: float, status: str) -> None:
    """Write the summary and close what the loggers hold open."""
    trainer = cli.trainer
    if verb == "fit" and not cli.begun:
        if cli.fresh and trainer.is_global_zero:
            # it holds only what loggers prepared, and the corrected recipe needs the folder to be free
            remove_folder(cli.run_dir)
    elif trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        content = runs.summary(
            trainer,
            cli.model,
            cli.datamodule,
            recipe=str(cli.request.recipes[0]) if cli.request.recipes else "",
            command=shlex.join(["lebm", verb, *cli.request.typed]),
            seed=cli.config.seed_everything,
            started=started,
            status=status,
        )
        target = cli.run_dir / ("summary.json" if verb == "fit" else f"{verb}.json")
        if verb == "fit" and (earlier := runs.earlier_attempts(target)):
            content["earlier_attempts"] = earlier
        try:
            runs.write_json(target, content)
        except OSError as error:
            if status != "failed":  # or it has failed for the same reason and said so
                fail(f"cannot write {target} ({error.strerror or error})", 2)
            return
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                _conclude(logger.experiment, cli, verb, content)
        if status != "failed":
            tell(f"lebm: {status}, {target}")
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish(exit_code=0 if status == "finished" else 1)


def _conclude(run: Any, cli: TrainingCLI, verb: str, content: dict[str, Any]) -> None:
    """Give a run of Weights & Biases its summary, and its model if the recipe asks for that."""
    values = with_ends(content["metrics"])
    run.summary.update({"run" if verb == "fit" else verb: content, **values})
    if verb == "fit" and content["status"] == "finished":
        facts = {name: content[name] for name in ("recipe", "seed", "steps", "versions")}
        metadata = {"method": type(cli.model).__name__, **facts, "figures": values}
        Model(cli.recipe.trainer.logger).log(run, cli.run_dir, metadata)


def quiet() -> None:
    """Keep Lightning's notices for debugging; what matters is printed by the command itself."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    launcher = logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script")
    launcher.setLevel(logging.INFO)  # it says that a process died
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of what Lightning calls
    for notice in _NOTICES:
        warnings.filterwarnings("ignore", notice)
