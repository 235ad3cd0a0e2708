"""``lebm doctor``: what this machine has, and what would go wrong on it.

Every probe catches its own failure, so that the report is whole even where torch cannot be imported.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from lebm._version import __version__
from lebm.cli.flags import VerbParser
from lebm.extras import EXTRAS

Finding = tuple[str, str, str]  # "ok", "note" or "broken"; name; what was found

_OPTIONAL = {package.replace("_", "-"): extra for package, extra in EXTRAS.items()}
_INCEPTION = "weights-inception-2015-12-05-6726825d.pth"


def doctor(argv: list[str]) -> int:
    """``lebm doctor``; 0 if nothing that is needed is broken, else 1."""
    parser = VerbParser("lebm doctor", description="Check packages, devices, disk, W&B and metric weights.")
    parser.epilog = "python -m torch.utils.collect_env describes the whole machine"
    parser.parse_args(argv)
    broken = 0
    for probe in (_python, _packages, _torch_pair, _devices, _disk, _wandb, _inception):
        try:
            found = list(probe())
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            found = [("broken", probe.__name__.lstrip("_"), reason)]
        for level, name, text in found:
            broken += level == "broken"
            print(f"{level:<7} {name:<16} {text}")
    print("everything that is needed works" if not broken else f"{broken} problem(s) found")
    return 1 if broken else 0


def _python() -> Iterator[Finding]:
    yield "ok", "python", f"{platform.python_version()} ({sys.executable})"
    yield "ok", "lebm", f"{__version__} in {Path(__file__).resolve().parent.parent}"


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    for needed in map(Requirement, importlib.metadata.requires("lebm") or ()):
        name, missing = needed.name, "note" if needed.name in _OPTIONAL else "broken"
        if needed.marker is not None and name not in _OPTIONAL:
            continue
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            words = f'"lebm[{_OPTIONAL[name]}]"' if name in _OPTIONAL else name
            yield missing, name, f"not installed: pip install {words}"
            continue
        if not needed.specifier.contains(version, prereleases=True):
            yield missing, name, f"{version} is not within {needed.specifier}"
        else:
            yield "ok", name, version


def _torch_pair() -> Iterator[Finding]:
    import torch
    import torchvision

    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # fails if not built for one another
    yield (
        "ok",
        "torch pair",
        f"torch {torch.__version__} and torchvision {torchvision.__version__} work together",
    )


def _devices() -> Iterator[Finding]:
    import torch

    yield "ok", "cpu", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"
    for index in range(torch.cuda.device_count()):
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info(index))
        yield (
            "ok",
            f"cuda:{index}",
            f"{torch.cuda.get_device_name(index)}, {free:.1f} of {total:.1f} GiB free",
        )
    if not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        yield "note", "cuda", f"a driver is installed, but torch {torch.__version__} finds no device"


def _disk() -> Iterator[Finding]:
    cache = Path(os.environ.get("LEBM_CACHE") or "~/.cache/lebm").expanduser()
    for name, path in (("disk here", Path.cwd()), ("disk cache", cache)):
        there = next(folder for folder in (path, *path.parents) if folder.exists())
        free, writable = shutil.disk_usage(there).free / 2**30, os.access(there, os.W_OK)
        level = "broken" if not writable else "note" if free < 2 else "ok"
        yield level, name, f"{path}: {free:.1f} GiB free{'' if writable else ', not writable'}"


def _wandb() -> Iterator[Finding]:
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    known = "WANDB_API_KEY" in os.environ or (netrc.is_file() and "wandb" in netrc.read_text(errors="ignore"))
    login = (
        "logged in" if known else "not logged in: runs are recorded offline until wandb login and wandb sync"
    )
    yield "ok", "wandb login", f"mode {os.environ.get('WANDB_MODE', 'as the recipe says')}, {login}"


def _inception() -> Iterator[Finding]:
    home = Path(
        os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    )
    file = home.expanduser() / "hub" / "checkpoints" / _INCEPTION
    known = "there" if file.is_file() else "not there; FID downloads it, or put it there"
    yield "ok" if file.is_file() else "note", "FID weights", f"{file}: {known}"
