"""Training and evaluation by a recipe: the checks before a run starts, and its end."""

import contextlib
import ctypes
import errno
import json
import logging
import os
import re
import shlex
import signal
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from lebm import checkpoint, hub, pretrained
from lebm.callbacks.divergence import DivergenceError
from lebm.checkpoint.rebuild import build
from lebm.checkpoint.writing import AtomicCheckpointIO
from lebm.config import recipes
from lebm.config.parser import RecipeCLI
from lebm.config.recipes import Setting
from lebm.config.request import Request
from lebm.data.module import SplitData
from lebm.errors import UserError, fail, tell
from lebm.estimators.latent_model import LatentModel
from lebm.files import remove_folder
from lebm.run import folder as runs
from lebm.run.callbacks import Preempted
from lebm.run.folder import sole_writer
from lebm.run.loggers import with_ends

_NOTICES = (
    ".*does not have many workers.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*is smaller than the logging interval.*",
    ".*in eval mode at the start of training.*",  # frozen parts
    ".*The dirpath has changed from.*",  # a run folder may be moved
    ".*LeafSpec.* is deprecated.*",
    ".*is not supported by the model summary.*",  # lebm prints no size in memory
    ".*Total length of `list` across ranks is zero.*",  # the recipe asks for no validation
)
_LOST = re.compile("connection (closed|reset) by peer|timed out waiting|broken pipe|watchdog")


class TrainingCLI(RecipeCLI):
    """The parser of a training or evaluation, with the checks before the run and its first checkpoint.

    Attributes:
        ckpt_path: the checkpoint to start from or to evaluate, if any.
        stored_model: the description of the model in that checkpoint.
        begun: whether training has begun; later errors are not errors of the recipe.
        fresh: whether this run created its folder.
        held: resources to release at the end of the run: the lock of the run folder.
    """

    ckpt_path: Path | None = None
    stored_model: Any = None
    begun = False
    fresh = False

    def __init__(self, request: Request, held: contextlib.ExitStack) -> None:
        self.held = held
        if request.run is not None and any("model" in setting.sections for setting in request.settings):
            # Settings of the model override the model of the checkpoint.
            _, content = checkpoint.newest(Path(request.flags.get("ckpt_path") or request.run))
            request.settings.insert(0, Setting("model", content.get("hyper_parameters"), None))
        super().__init__(request)

    def prepare_run(self) -> None:
        fit, folder = self.request.verb == "fit", self.run_dir / "checkpoints"
        if fit and runs.is_first_process():
            self.fresh = not self.run_dir.exists()
            self.held.enter_context(sole_writer(self.run_dir, self.request.resume))
            if self.request.resume:
                AtomicCheckpointIO.clean(folder)
        if not fit or self.config.ckpt_path:
            self.ckpt_path = Path(self.config.ckpt_path or self.run_dir)
        if self.request.resume and any(folder.glob("[!.]*.ckpt")):
            self.ckpt_path = self.run_dir
        if self.ckpt_path is None:
            self._find_backbone()
            return
        self.ckpt_path, content = checkpoint.newest(self.ckpt_path)
        if checkpoint.is_model_file(self.ckpt_path):
            raise UserError(
                f"{self.ckpt_path}: a model file contains no training state; name a .ckpt file, or measure"
                " the model with lebm evaluate"
            )
        if self.request.resume or self.request.verb != "fit":
            self.first_step = content.get("global_step", 0) if self.request.resume else sys.maxsize
            self.wandb_id = content.get("callbacks", {}).get("WandbRun", {}).get("run_id")
        self.stored_model = content.get("hyper_parameters")
        if self.request.resume:
            limits, steps = self.config.trainer, content.get("global_step", 0)
            try:
                epochs = content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
            except (KeyError, TypeError):
                epochs = 0
            all_epochs = limits.max_epochs not in (None, -1) and epochs >= limits.max_epochs
            if all_epochs or 0 <= limits.max_steps <= steps:
                tell(
                    f"lebm: {self.run_dir} is finished ({epochs} epochs, {steps} steps); raise"
                    " --trainer.max_epochs or --trainer.max_steps to continue"
                )
                raise SystemExit(0)
            # The stored recipe has its references filled in, so the flag would not change the networks.
            given = {"latent_dim", "latent_dims"} & self.request.flags.keys()
            if given and self.request.recipes[0] == self.run_dir / "config.yaml":
                raise UserError(
                    f"--{given.pop()}: a resumed run keeps the sizes of its networks; leave the flag out, or"
                    " train a new run with another --run_dir"
                )

    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        if self.model is None:
            try:
                self.model = build(self.stored_model, LatentModel, self.request.trust)  # type: ignore[type-abstract]
            except UserError as error:
                raise UserError(f"{self.ckpt_path}: {error}") from error
        if isinstance(self.datamodule, SplitData):  # other data modules may need their trainer
            self.datamodule.setup()  # type: ignore[call-arg]
            self.notes = [*self.notes, *self.datamodule.notes()]
            if self.request.verb == "fit":
                self.datamodule.check_batch_size()

    def _find_backbone(self) -> None:
        """Reject a missing ``backbone``, the run whose networks a method starts from."""
        inference = (self.config.model.get("init_args") or {}).get("inference") or {}
        backbone = (inference.get("init_args") or {}).get("backbone")
        elsewhere = (pretrained.PREFIX, hub.PREFIX)
        if backbone is None or Path(backbone).exists() or backbone.startswith(elsewhere):
            return
        known = {name.replace("/", "-"): f"train it first: lebm fit -c {name}" for name in recipes.names()}
        hint = known.get(Path(backbone).name, "name the run folder or checkpoint of the trained backbone")
        key = "model.init_args.inference.init_args.backbone"
        raise UserError(f"{key}: {backbone}: no such run folder or checkpoint; {hint}")


def run(request: Request) -> int:
    """Run the verb of a request and return the exit status; the run folder records how the run ended."""
    quiet()
    keep_memory()
    started, shown = time.time(), threading.excepthook
    with contextlib.ExitStack() as held:
        held.callback(setattr, threading, "excepthook", shown)
        # TensorBoard's thread hands its error to the next call of its writer, so this process fails with it.
        threading.excepthook = lambda end: None if isinstance(end.exc_value, OSError) else shown(end)
        return _run(TrainingCLI(request, held), request.verb, started)


def _run(cli: TrainingCLI, verb: str, started: float) -> int:
    handler, status, code = signal.getsignal(signal.SIGINT), "failed", 1
    try:
        if runs.is_first_process():
            source = f", from {cli.ckpt_path}" if cli.ckpt_path else ""
            for note in (f"{verb} in {cli.run_dir}{source}", *cli.notes):
                tell(f"lebm: {note}")
        begin = LambdaCallback(on_train_start=lambda *_: setattr(cli, "begun", True))
        cli.trainer.callbacks.insert(0, begin)  # type: ignore[attr-defined]
        getattr(cli.trainer, verb)(cli.model, cli.datamodule, ckpt_path=cli.ckpt_path, weights_only=True)
        if cli.trainer.state.status == TrainerStatus.INTERRUPTED:
            raise KeyboardInterrupt  # Lightning ends an interrupted run without raising
        status, code = "finished", 0
    except Preempted as stop:
        # the other processes exit with 0, because a launcher kills all processes once one has failed
        status, code = "interrupted", stop.args[0] if runs.is_first_process() else 0
    except SIGTERMException:
        status, code = "interrupted", 143
    except (KeyboardInterrupt, SystemExit):
        if cli.trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
        status, code = "interrupted", 130
    except Exception as error:
        code = failure_status(cli, error)
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning ignores the signal permanently after the first
        _leave(cli, verb, started, status)
    return code


def _leave(cli: TrainingCLI, verb: str, started: float, status: str) -> None:
    """Write the summary and close the loggers."""
    trainer = cli.trainer
    if verb == "fit" and not cli.begun:
        if cli.fresh and trainer.is_global_zero:
            # it holds only files of loggers, and the corrected recipe needs the folder to be free
            remove_folder(cli.run_dir)
    elif trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        content = _summary(cli, started, status)
        target = cli.run_dir / ("summary.json" if verb == "fit" else f"{verb}.json")
        if verb == "fit":
            names = ("status", "command", "started", "wall_time_seconds", "cpu_time_seconds", "steps")
            with contextlib.suppress(OSError, ValueError, KeyError):  # no summary, or one of an older version
                last = json.loads(target.read_text(encoding="utf-8"))
                attempt = {name: last[name] for name in names}
                content["earlier_attempts"] = [*last.get("earlier_attempts", []), attempt]
        try:
            runs.write_json(target, content)
        except OSError as error:
            if status != "failed":  # a failed run has reported the reason already
                fail(f"cannot write {target} ({error.strerror or error})", 2)
            return
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                _conclude(logger.experiment, cli, verb, content)
        if status != "failed":
            following = "sample" if verb == "fit" else "evaluate"
            then = f"; next: lebm {following} {cli.run_dir}" if status == "finished" else ""
            if status == "interrupted" and verb == "fit":
                then = f"; lebm fit --resume {cli.run_dir} continues"
            tell(f"lebm: {status}, {target}{then}")
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish(exit_code=0 if status == "finished" else 1)


def _summary(cli: TrainingCLI, started: float, status: str) -> dict[str, Any]:
    """Return the settings and results of a run as plain values."""
    trainer: Any = cli.trainer
    measuring = [part for part in trainer.callbacks if getattr(part, "protocol", None)]
    data = chains = None
    with contextlib.suppress(Exception):  # as for the data of a run that failed early
        data = cli.datamodule.describe_split()
    with contextlib.suppress(Exception):
        chains = cli.model.chain_settings
    return {
        "status": status,
        "recipe": str(cli.request.recipes[0]) if cli.request.recipes else "",
        "command": shlex.join(["lebm", cli.request.verb, *cli.request.typed]),
        "seed": cli.config.seed_everything,
        "versions": runs.versions(),
        "hardware": runs.hardware(),
        "processes": trainer.world_size,
        "precision": str(trainer.precision),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started)),
        "wall_time_seconds": round(time.time() - started, 3),
        "cpu_time_seconds": round(time.process_time(), 3),
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        # as logged, because callbacks see the mean loss of the last epoch
        "metrics": runs.plain({**trainer.callback_metrics, **trainer.logged_metrics}),
        "protocols": runs.plain({type(part).__name__: part.protocol for part in measuring}),
        "data": runs.plain(data),
        "chains": runs.plain(chains),
    }


def _conclude(run: Any, cli: TrainingCLI, verb: str, content: dict[str, Any]) -> None:
    """Store the summary in a Weights & Biases run, and ``last.ckpt`` as an artifact if ``log_model`` asks."""
    import wandb

    values = with_ends(content["metrics"])
    run.summary.update({"run" if verb == "fit" else verb: content, **values})
    chosen = cli.recipe.trainer.logger if verb == "fit" and content["status"] == "finished" else []
    facts = {name: content[name] for name in ("recipe", "seed", "steps", "versions")}
    metadata = {"method": type(cli.model).__name__, **facts, "figures": values}
    for block in chosen if isinstance(chosen, list) else [chosen]:
        arguments = (block.get("init_args") or {}) if hasattr(block, "get") else {}
        if arguments.get("log_model"):
            name = arguments.get("checkpoint_name") or f"model-{run.id}"
            artifact = wandb.Artifact(name, type="model", metadata=metadata)
            artifact.add_file(str(cli.run_dir / "checkpoints" / "last.ckpt"), name="last.ckpt")
            run.log_artifact(artifact, aliases=["latest", "last"])


def keep_memory() -> None:
    """Let glibc keep the memory of freed tensors, which it otherwise returns to the kernel in every step."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        libc.mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD, its largest value


def quiet() -> None:
    """Hide Lightning's notices, which matter for debugging only."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    launcher = logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script")
    launcher.setLevel(logging.INFO)  # it reports that a process died
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of functions that Lightning calls
    for notice in _NOTICES:
        warnings.filterwarnings("ignore", notice)


def failure_status(cli: TrainingCLI, error: Exception) -> int:
    """Print one line about the error that ended a run, and return the exit status.

    A plain ``ValueError`` before training concerns a value of the recipe. During training it is a bug in the
    code of a step, so its traceback is printed.

    Raises:
        Exception: ``error`` itself, if one line does not explain it.
    """
    if isinstance(error, DivergenceError) and not runs.is_first_process():
        return 2
    if isinstance(error, UserError | MisconfigurationException):
        return fail(str(error), 2)
    if isinstance(error, ValueError) and cli.begun:
        traceback.print_exception(error)
        return 1
    if isinstance(error, ValueError):
        return fail(f"{error} (LEBM_DEBUG=1 shows where)", 2)
    resumes = cli.request.verb == "fit" and any((cli.run_dir / "checkpoints").glob("*.ckpt"))
    again = f"lebm fit --resume {cli.run_dir} continues"
    if isinstance(error, OSError):
        line = str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # TensorBoard names no file
            line = f"{error.filename or cli.run_dir}: {error.strerror}; free disk space"
            line += f", then {again}" if resumes else ""
        return fail(line, 2)
    lines = str(error).splitlines() or [""]
    first, second = lines[0][:200], "".join(lines[1:2]).strip()[:200].rstrip(". ")
    if type(error).__module__.startswith("wandb."):
        said = first.split(". ")[0].rstrip(".") or type(error).__name__
        line = f"Weights & Biases: {said}; log in with `wandb login`, or set"
        return fail(f"{line} trainer.logger.init_args.offline true and run `wandb sync` later", 2)
    if not isinstance(error, RuntimeError):
        raise error
    if "loading state_dict" in first and not cli.begun:
        line = f"{cli.ckpt_path}: the networks of the checkpoint differ from the recipe ({second}); restore"
        return fail(f"{line} the networks of the recipe, or start a new run with another --run_dir", 2)
    if "out of memory" in str(error):
        remedy = "lower --data.init_args.batch_size or the widths of the networks"
        return fail(f"out of memory; {remedy} ({first})", 2)
    if "DataLoader worker" in str(error):
        return fail(f"a data loading process has died ({first}); {again}", 1)
    if cli.trainer.world_size > 1 and _LOST.search(str(error).lower()):
        line = f"process {cli.trainer.global_rank} has lost another process of this run ({first})"
        return fail(f"{line}; {again} from its last checkpoint", 1)
    raise error
