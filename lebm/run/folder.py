"""The run folder: who may write into it, and the summary that a run leaves there."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

from lebm._version import __version__
from lebm.errors import UserError
from lebm.files import replaced

__all__ = [
    "check_links",
    "check_run",
    "claim",
    "hardware",
    "inside",
    "is_first_process",
    "ordinary",
    "plain",
    "summary",
    "versions",
    "write_json",
]


_USED = (
    *("config.yaml", "metrics.csv", "predictions.npz", "evaluation.json", "checkpoints", "tensorboard"),
    *("summary.json", "test.json", "validate.json", "predict.json", "wandb", "images", "samples", "scores"),
    "diagnosis",
)


def is_first_process() -> bool:
    """Whether this is the process of rank zero, by the environment that launchers set."""
    rank = next((os.environ[name] for name in ("RANK", "SLURM_PROCID") if name in os.environ), None)
    if rank is None:
        rank = os.environ.get("LOCAL_RANK", "0") if os.environ.get("NODE_RANK", "0") == "0" else "1"
    return not rank.isdigit() or int(rank) == 0


def claim(run_dir: Path, resume: bool) -> None:
    """Refuse a folder that holds something already, unless its run is to be continued.

    Raises:
        UserError: naming the folder and both ways out; nothing has been written then.
    """
    if not run_dir.exists():
        return
    if not run_dir.is_dir():
        raise UserError(f"{run_dir} is a file; choose a folder with --run_dir")
    if resume or not any(run_dir.iterdir()):
        return
    free = next(
        candidate for number in range(2, 10**6) if not (candidate := Path(f"{run_dir}-{number}")).exists()
    )
    raise UserError(
        f"{run_dir} exists; continue it with --resume, or choose another folder with --run_dir {free}"
    )


def inside(run: Path, path: Path) -> Path:
    """A path in a run folder, if no link and no ``..`` leads out of the folder.

    Args:
        run: the run folder, which may have come from anywhere.
        path: what is to be read or written there.

    Raises:
        UserError: if it leads out.
    """
    if not path.resolve().is_relative_to(run.resolve()):
        raise UserError(f"{path}: a link out of the run folder, which is not followed")
    return path


def ordinary(run: Path, path: Path) -> bool:
    """Whether there is a file to read in a run folder.

    Raises:
        UserError: if it is a pipe or a device, or lies outside the folder.
    """
    if not os.path.lexists(path):
        return False
    inside(run, path)
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not an ordinary file")
    return path.is_file()


def check_run(path: Path) -> None:
    """Refuse what is no run folder with a checkpoint and no file; this needs no import of torch.

    Raises:
        UserError: naming the path.
    """
    if not path.exists():
        raise UserError(f"{path}: no such run folder or checkpoint")
    if path.is_dir() and not any((path / "checkpoints").glob("[!.]*.ckpt")):
        raise UserError(f"{path}: no checkpoints/last.ckpt in this folder; name a run folder or a .ckpt file")


def check_links(run_dir: Path) -> None:
    """Refuse a run folder in which something that runs read or write is a link out of the folder.

    Raises:
        UserError: naming the link.
    """
    for name in _USED:
        inside(run_dir, run_dir / name)
    for name in ("images", "samples", "scores"):
        for file in (run_dir / name).rglob("*"):
            inside(run_dir, file)


def summary(
    trainer: Any, model: Any, data: Any, *, recipe: str, command: str, seed: Any, started: float, status: str
) -> dict[str, Any]:
    """What a run was and what came out, as plain values.

    Args:
        trainer: after the run.
        model: the estimator; its ``chain_settings`` are recorded.
        data: the data module; ``describe_split()`` is recorded if it has one.
        recipe: path or name.
        command: the words typed.
        seed: of ``seed_everything``.
        started: ``time.time()`` at the start.
        status: ``finished``, ``interrupted`` or ``failed``.
    """
    describe_split = getattr(data, "describe_split", None)
    return {
        "status": status,
        "recipe": recipe,
        "command": command,
        "seed": seed,
        "versions": versions(),
        "hardware": hardware(),
        "processes": trainer.world_size,
        "precision": str(trainer.precision),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started)),
        "wall_time_seconds": round(time.time() - started, 3),
        "cpu_time_seconds": round(time.process_time(), 3),
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "metrics": plain(dict(trainer.callback_metrics)),
        "protocols": plain(
            {
                type(part).__name__: part.protocol
                for part in trainer.callbacks
                if getattr(part, "protocol", None)
            }
        ),
        "data": plain(_guarded(describe_split)),
        "chains": plain(_guarded(lambda: model.chain_settings)),
    }


def earlier_attempts(target: Path) -> list[dict[str, Any]]:
    """What the attempts took that left ``target`` before this one went on, so that the cost of a resumed run
    can be added up.
    """
    try:
        last = json.loads(target.read_text(encoding="utf-8"))
        kept = {
            name: last[name]
            for name in ("status", "command", "started", "wall_time_seconds", "cpu_time_seconds", "steps")
        }
        return [*last.get("earlier_attempts", []), kept]
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ):  # none, or damaged: nothing is known, and nothing is lost
        return []


def spent_minutes(summary: dict[str, Any], which: str = "cpu") -> float | None:
    """CPU or wall time of a run by its summary, earlier attempts included; ``None`` where the summary does
    not say.
    """
    name = f"{which}_time_seconds"
    if summary.get(name) is None:
        return None
    return sum(attempt[name] for attempt in (summary, *summary.get("earlier_attempts", []))) / 60


def versions() -> dict[str, str]:
    """Of everything that can change a number."""
    import lightning
    import torch

    return {
        "lebm": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
    }


def hardware() -> dict[str, Any]:
    """Processor, cores, threads and accelerators."""
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace a file in one step, so that a reader never sees half of it."""
    with replaced(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """Numbers, texts, lists and mappings only; what is not finite becomes ``None``."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    return str(value)


def _guarded(ask: Any) -> Any:
    """The answer, or ``None``: a run that failed early may be unable to describe its data."""
    try:
        return ask() if ask is not None else None
    except Exception:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor() or "unknown",
    )
