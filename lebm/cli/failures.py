"""How a run that failed ends: one line and a status for what the user can mend, a traceback for the rest."""

from __future__ import annotations

import errno
import re
import traceback
from pathlib import Path

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lebm.callbacks.divergence import DivergenceError
from lebm.cli.common import fail
from lebm.cli.starting import TrainingCLI, other_networks
from lebm.errors import UserError
from lebm.run import folder as runs

__all__ = ["failure_status", "wandb_line"]

_LOST = re.compile("connection (closed|reset) by peer|timed out waiting|broken pipe|watchdog")


def failure_status(cli: TrainingCLI, error: Exception) -> int:
    """Say in one line what has ended a run, and return the exit status.

    A plain ``ValueError`` before training is about a value of the recipe. Once training has begun it is a
    mistake in the code of a step, so it is printed with its traceback.

    Raises:
        Exception: ``error`` itself, if it is none of the kinds that one line explains.
    """
    if isinstance(error, DivergenceError):
        return fail(str(error), 2) if runs.is_first_process() else 2
    if isinstance(error, UserError | MisconfigurationException):
        return fail(str(error), 2)
    if isinstance(error, OSError):
        return fail(_file_line(cli, error), 2)
    if isinstance(error, ValueError):
        if cli.begun:
            traceback.print_exception(error)
            return 1
        return fail(f"{error} (LEBM_DEBUG=1 shows where)", 2)
    if isinstance(error, RuntimeError):
        return _runtime_failure(cli, error)
    if type(error).__module__.startswith("wandb."):
        return fail(wandb_line(error), 2)
    raise error


def _runtime_failure(cli: TrainingCLI, error: RuntimeError) -> int:
    """One line for the failures that are no mistakes of the program: memory, and the other processes."""
    first = str(error).splitlines()[0][:200]
    if "loading state_dict" in first and not cli.begun:
        detail = "".join(str(error).splitlines()[1:2]).strip()[:200].rstrip(". ")
        return fail(other_networks(cli.ckpt_path, detail), 2)
    if "out of memory" in str(error):
        return fail(f"out of memory; lower --data.init_args.batch_size or the networks' widths ({first})", 2)
    if "DataLoader worker" in str(error):
        return fail(
            f"a process that reads data has died ({first}); lebm fit --resume {cli.run_dir} continues", 1
        )
    if cli.trainer.world_size > 1 and _LOST.search(str(error).lower()):
        told = f"process {cli.trainer.global_rank} has lost another process of this run ({first})"
        return fail(f"{told}; lebm fit --resume {cli.run_dir} continues from its last checkpoint", 1)
    raise error


def _file_line(cli: TrainingCLI, error: OSError) -> str:
    """The system's words, and the way out where they are about the run folder."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):  # tensorboard's errors name no file
        resumes = cli.request.verb == "fit" and any((cli.run_dir / "checkpoints").glob("*.ckpt"))
        again = f", then lebm fit --resume {cli.run_dir} continues" if resumes else ""
        return f"{error.filename or cli.run_dir}: {error.strerror}; make room there{again}"
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


def wandb_line(error: Exception) -> str:
    """One line for an error of wandb, and the way out."""
    said = next(iter(str(error).splitlines()), type(error).__name__).split(". ")[0][:200].rstrip(".")
    return (
        f"Weights & Biases: {said}; log in with `wandb login`, or leave trainer.logger.init_args.offline true"
        " and `wandb sync` later"
    )
