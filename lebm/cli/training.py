"""Running what a recipe describes: training and evaluation, with their ends good and bad."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from lebm import checkpoint
from lebm.callbacks.divergence import DivergenceError
from lebm.checkpoint.writing import AtomicCheckpointIO
from lebm.cli.common import fail
from lebm.config import checks, recipes
from lebm.config.parser import RecipeCLI
from lebm.config.request import Request
from lebm.errors import UserError
from lebm.run import folder as runs
from lebm.run.callbacks import SavePredictions
from lebm.run.loggers import WandbRun
from lebm.run.preemption import Preempted

__all__ = ["quiet", "run"]

_NOTICES = (
    ".*does not have many workers.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*is smaller than the logging interval.*",
    ".*The dirpath has changed from.*",  # a run folder may be moved
    ".*LeafSpec.* is deprecated.*",
)


class _FinishedError(Exception):
    """There is nothing left to train."""


class _TrainingCLI(RecipeCLI):
    """Adds the question whether a run may start here, and from which checkpoint."""

    ckpt_path: Path | None = None
    stored: Mapping[str, tuple[int, ...]] = {}
    begun = False
    fresh = False

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        trainer.callbacks.insert(0, LambdaCallback(on_train_start=self._begin))  # type: ignore[attr-defined]
        return trainer

    def _begin(self, *args: Any) -> None:
        self.begun = True

    def prepare_run(self) -> None:
        if self.request.verb == "fit":
            self._prepare_fit()
        elif self.config.ckpt_path:
            self.ckpt_path = Path(self.config.ckpt_path)
        else:
            self.ckpt_path = self.run_dir
        if self.ckpt_path is None:
            return
        self.ckpt_path, content = checkpoint.newest(self.ckpt_path)
        self.first_step = (
            sys.maxsize
            if self.request.verb != "fit"
            else content.get("global_step", 0)
            if self.request.resume
            else 0
        )
        stored = content.get("callbacks", {}).get(WandbRun.KEY)
        if self.request.resume or self.request.verb != "fit":
            self.wandb_id = (stored or {}).get("run_id")
        self.stored = {
            name: tuple(value.shape)
            for name, value in content["state_dict"].items()
            if hasattr(value, "shape")
        }
        if self.request.resume:
            self._same_short_names()
            self._stop_if_finished(content)

    def _same_short_names(self) -> None:
        """The stored recipe has its references filled in, so that another value would change what is written
        and not what is trained.
        """
        before = (
            checks.load_recipe(self.run_dir / "config.yaml")
            if (self.run_dir / "config.yaml").is_file()
            else {}
        )
        for name in ("latent_dim", "latent_dims"):
            if name in before and self.config[name] != before[name]:
                own = "without" if before[name] is None else f"with {before[name]}"
                raise UserError(
                    f"{name}: {self.run_dir} was begun {own}, which a resumed run keeps, not"
                    f" {self.config[name]}; resume by --resume {self.run_dir} without it, or train a new run"
                    " with -c and --run_dir"
                )

    def same_networks(self) -> None:
        """Refuse a checkpoint of other networks before the run folder is touched.

        Raises:
            UserError: naming the first weight that differs.
        """
        for name, value in self.model.named_parameters():
            if self.stored.get(name, value.shape) != tuple(value.shape):
                raise UserError(
                    _other_networks(
                        self.ckpt_path,
                        f"{name} has the shape {self.stored[name]} there and {tuple(value.shape)} here",
                    )
                )

    def _prepare_fit(self) -> None:
        if runs.is_first_process():
            runs.claim(self.run_dir, self.request.resume)
            self.fresh = not self.run_dir.exists()
            if self.request.resume:
                AtomicCheckpointIO.clean(self.run_dir / "checkpoints")
        if self.request.resume and any((self.run_dir / "checkpoints").glob("[!.]*.ckpt")):
            self.ckpt_path = self.run_dir
        elif self.config.ckpt_path:
            self.ckpt_path = Path(self.config.ckpt_path)
        else:
            self._find_backbone()

    def _find_backbone(self) -> None:
        """A method that starts from another run's networks says so by an argument of this name."""
        backbone = (self.config.model.get("init_args") or {}).get("backbone")
        if backbone is None or Path(backbone).exists():
            return
        maker = next(
            (name for name in recipes.names() if name.replace("/", "-") == Path(backbone).name), None
        )
        hint = (
            f"train it first: lebm fit -c {maker}"
            if maker
            else "name the run folder or checkpoint of the trained backbone"
        )
        raise UserError(f"model.init_args.backbone: {backbone}: no such run folder or checkpoint; {hint}")

    def _stop_if_finished(self, content: dict[str, Any]) -> None:
        limits = self.config.trainer
        progress = content.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {}).get("current", {})
        epochs, steps = progress.get("processed", 0), content.get("global_step", 0)
        if (
            limits.max_epochs not in (None, -1) and epochs >= limits.max_epochs
        ) or 0 <= limits.max_steps <= steps:
            raise _FinishedError(
                f"{self.run_dir} is finished ({epochs} epochs, {steps} steps); raise --trainer.max_epochs or"
                " --trainer.max_steps to go on"
            )


def run(request: Request) -> int:
    """Run the verb of a request and return the exit status; the run folder tells how it ended."""
    quiet()
    verb = request.verb
    started = time.time()
    handler = signal.getsignal(signal.SIGINT)
    try:
        cli = _TrainingCLI(request)
        cli.same_networks()
    except _FinishedError as news:
        print(f"lebm: {news}")
        return 0
    status, code = "failed", 1
    try:
        if runs.is_first_process():
            source = f", from {cli.ckpt_path}" if cli.ckpt_path else ""
            print(f"lebm: {verb} in {cli.run_dir}{source}")
        _execute(cli, verb)
        status, code = "finished", 0
    except DivergenceError as error:
        code = fail(str(error), 2) if runs.is_first_process() else 2
    except (UserError, MisconfigurationException) as error:
        code = fail(str(error), 2)
    except OSError as error:
        code = fail(_file_line(cli, error), 2)
    except ValueError as error:
        code = fail(f"{error} (LEBM_DEBUG=1 shows where)", 2)
    except Preempted as stop:
        # the others leave quietly, because a launcher kills all as soon as one of them has failed
        status, code = "interrupted", 128 + stop.number if runs.is_first_process() else 0
    except SIGTERMException:
        status, code = "interrupted", 143
    except (KeyboardInterrupt, SystemExit):
        if cli.trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
        status, code = "interrupted", 130
    except RuntimeError as error:
        code = _runtime_failure(cli, error)
    except Exception as error:
        if not type(error).__module__.startswith("wandb."):
            raise
        code = fail(_wandb_line(error), 2)
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning ignores it for good once it has seen one
        _leave(cli, verb, started, status)
    return code


def _runtime_failure(cli: _TrainingCLI, error: RuntimeError) -> int:
    """One line for the failures that are no mistakes of the program: memory, and the other processes."""
    first = str(error).splitlines()[0][:200]
    if "loading state_dict" in first and not cli.begun:
        detail = "".join(str(error).splitlines()[1:2]).strip()[:200].rstrip(". ")
        return fail(_other_networks(cli.ckpt_path, detail), 2)
    if "out of memory" in str(error):
        return fail(f"out of memory; lower --data.init_args.batch_size or the networks' widths ({first})", 2)
    if "DataLoader worker" in str(error):
        return fail(
            f"a process that reads data has died ({first}); lebm fit --resume {cli.run_dir} continues", 1
        )
    lost = (
        "connection closed by peer",
        "connection reset by peer",
        "timed out waiting",
        "broken pipe",
        "watchdog",
    )
    if cli.trainer.world_size > 1 and any(words in str(error).lower() for words in lost):
        told = f"process {cli.trainer.global_rank} has lost another process of this run ({first})"
        return fail(f"{told}; lebm fit --resume {cli.run_dir} continues from its last checkpoint", 1)
    raise error


def _file_line(cli: _TrainingCLI, error: OSError) -> str:
    """The system's words, and the way out where they are about the run folder."""
    file = Path(str(error.filename)).absolute()
    if (
        cli.request.verb != "fit"
        or cli.begun
        or error.filename is None
        or not file.is_relative_to(cli.run_dir.absolute())
    ):
        return str(error)
    return (
        f"{cli.run_dir}: cannot write the run folder ({error.strerror or error}); choose another place with"
        " --run_dir"
    )


def _wandb_line(error: Exception) -> str:
    said = next(iter(str(error).splitlines()), type(error).__name__).split(". ")[0][:200].rstrip(".")
    return (
        f"Weights & Biases: {said}; log in with `wandb login`, or leave trainer.logger.init_args.offline true"
        " and `wandb sync` later"
    )


def _other_networks(path: Path | None, what: str) -> str:
    return (
        f"{path}: the checkpoint holds other networks than the recipe ({what}); leave the networks as they"
        " were, or start a new run"
    )


def _execute(cli: _TrainingCLI, verb: str) -> None:
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


def _leave(cli: _TrainingCLI, verb: str, started: float, status: str) -> None:
    """Write the summary and close what the loggers hold open."""
    trainer = cli.trainer
    if verb == "fit" and not cli.begun:
        if cli.fresh and trainer.is_global_zero:
            shutil.rmtree(
                cli.run_dir, ignore_errors=True
            )  # only what loggers prepared; the corrected recipe shall find it free
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
        except (
            OSError
        ) as error:  # the run has failed for the same reason and said so, or nothing but the summary is lost
            fail(f"cannot write {target} ({error.strerror or error})", 2)
            return
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.summary.update({"run": content})
        if status != "failed":
            print(f"lebm: {status}, {target}")
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish(exit_code=0 if status == "finished" else 1)


def quiet() -> None:
    """Keep Lightning's notices for debugging; what matters is printed by the command itself."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script").setLevel(
        logging.INFO
    )  # says that a process died
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of what Lightning calls
    for notice in _NOTICES:
        warnings.filterwarnings("ignore", notice)
