"""The run folder: its single writer, and the summary of a run."""

import contextlib
import errno
import itertools
import json
import os
import platform
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lebm._version import __version__
from lebm.errors import UserError
from lebm.files import write_text

LOCK = ".lock"
"""The file that the process training in a run folder has locked (:func:`sole_writer`)."""


def is_first_process() -> bool:
    """Return whether this process has rank zero, by the environment variables of launchers."""
    rank = next((os.environ[name] for name in ("RANK", "SLURM_PROCID") if name in os.environ), None)
    if rank is None:
        rank = os.environ.get("LOCAL_RANK", "0") if os.environ.get("NODE_RANK", "0") == "0" else "1"
    return not rank.isdigit() or int(rank) == 0


def claim(run_dir: Path, resume: bool) -> None:
    """Reject a folder that is not empty, unless its run is resumed; nothing is written."""
    if not run_dir.exists():
        return
    if not run_dir.is_dir():
        raise UserError(f"{run_dir}: a file, not a folder; choose a folder with --run_dir")
    if resume or all(entry.name == LOCK for entry in run_dir.iterdir()):
        return
    raise UserError(
        f"{run_dir} exists; continue it with --resume, or choose another folder with --run_dir"
        f" {free_name(run_dir)}"
    )


@contextlib.contextmanager
def sole_writer(run_dir: Path, resume: bool) -> Iterator[None]:
    """Claim a run folder and hold the lock of its file ``.lock``, which names the process and the host.

    The system releases the lock of a dead process. Folders created here are removed if they stay empty.

    Raises:
        UserError: if another process holds the lock, the folder cannot be written, or as :func:`claim`.
            Nothing has been written in these cases.
    """
    from filelock import FileLock, Timeout

    missing = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    file, place = run_dir / LOCK, "choose another folder with --run_dir"
    with contextlib.ExitStack() as held:
        held.callback(_remove, missing)
        try:
            if not file.exists():
                claim(run_dir, resume)
                run_dir.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(file, timeout=0))
        except Timeout as error:
            holder = file.read_text(errors="replace").strip() or "another process"
            raise UserError(f"{run_dir}: {holder} is training in this folder; wait, or {place}") from error
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno != errno.ENOLCK:
                raise UserError(f"{run_dir}: cannot write the run folder ({reason}); {place}") from error
            line = f"this file system has no locks ({reason}); start only one run in this folder"
            print(f"lebm: warning: {run_dir}: {line}", file=sys.stderr)
        claim(run_dir, resume)  # another run may have ended since the first check
        held.callback(_remove, [file])
        with contextlib.suppress(OSError):  # on a full disk the lock holds without the names
            file.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        yield


def _remove(paths: list[Path]) -> None:
    with contextlib.suppress(OSError):  # folders that are not empty stay
        for path in paths:
            path.rmdir() if path.is_dir() else path.unlink()


def free_name(path: Path, suffix: str = "") -> Path:
    """Return the first of ``path``, ``path-2``, ..., each with the suffix, that does not exist."""
    numbers = (f"-{number}" if number > 1 else "" for number in itertools.count(1))
    names = (Path(f"{path}{number}{suffix}") for number in numbers)
    # A broken link counts as taken, because writing would follow it.
    return next(name for name in names if not os.path.lexists(name))


def spent_minutes(summary: dict[str, Any], which: str = "cpu") -> float | None:
    """Return CPU or wall time of a run in minutes, with earlier attempts; ``None`` if unknown."""
    name = f"{which}_time_seconds"
    if summary.get(name) is None:
        return None
    return sum(attempt[name] for attempt in (summary, *summary.get("earlier_attempts", []))) / 60


def versions() -> dict[str, str]:
    """Return the versions of the packages that determine the results."""
    import lightning
    import torch

    return {
        "lebm": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
    }


def hardware() -> dict[str, Any]:
    """Return the processor, its cores and threads, and the accelerators."""
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "cpu": next(names, platform.processor() or "unknown"),
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file in one step."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def stored_json(run: Path, name: str) -> dict[str, Any]:
    """Return the content of a JSON file in a run folder; empty if the file does not exist."""
    if not (run / name).is_file():
        return {}
    try:
        return dict(json.loads((run / name).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{run / name}: not a JSON file with a mapping ({str(error)[:80]})") from error


def plain(value: Any) -> Any:
    """Convert a value to numbers, strings, lists and mappings; a non-finite number becomes ``None``."""

    def converted(part: Any) -> Any:
        if hasattr(part, "tolist"):
            return part.tolist()
        return list(part) if isinstance(part, set) else str(part)

    return json.loads(json.dumps(value, default=converted), parse_constant=lambda _: None)
