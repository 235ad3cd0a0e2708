"""``lebm doctor``: what this machine has, and what would go wrong on it.

Every probe catches its own failure, so that the report is whole even where torch cannot be imported.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from lebm._version import __version__
from lebm.cli.flags import VerbParser
from lebm.extras import EXTRAS

__all__ = ["doctor"]

Finding = tuple[str, str, str]  # "ok", "note" or "broken"; name; what was found

_BAD = {
    ("lightning", "2.6.2"): "was malware; remove it and change every credential it could reach",
    ("lightning", "2.6.3"): "was malware",
}
_OPTIONAL = {package.replace("_", "-"): extra for package, extra in EXTRAS.items()}
_INCEPTION = "weights-inception-2015-12-05-6726825d.pth"


def doctor(argv: list[str]) -> int:
    """``lebm doctor``; 0 if nothing that is needed is broken, else 1."""
    VerbParser(
        "lebm doctor", description="Check packages, devices, Weights & Biases, metric weights and disk."
    ).parse_args(argv)
    broken = 0
    probes = (_python, _packages, _torch_pair, _devices, _disk, _temporary, _wandb, _inception, _data_cache)
    for probe in probes:
        for level, name, text in _guarded(probe):
            broken += level == "broken"
            print(f"{level:<7} {name:<16} {text}")
    print("everything that is needed works" if not broken else f"{broken} thing(s) need mending")
    return 1 if broken else 0


def _guarded(probe: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from probe()
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        yield "broken", probe.__name__.lstrip("_"), reason


def _python() -> Iterator[Finding]:
    level = "ok" if sys.version_info >= (3, 10) else "broken"
    yield level, "python", f"{platform.python_version()} ({sys.executable}), needs 3.10 or newer"
    yield "ok", "lebm", f"{__version__} in {Path(__file__).resolve().parent.parent}"


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version as three numbers, so that 2.6 equals 2.6.0 and suffixes such as +cu126 do not
    count.
    """
    numbers = [int(number) for number in re.findall(r"\d+", version.split("+")[0])[:3]]
    return tuple(numbers + [0] * (3 - len(numbers)))


def _floors() -> dict[str, str]:
    """The oldest accepted version of each package that lebm needs, empty where any will do."""
    found = {}
    for line in importlib.metadata.requires("lebm") or ():
        requirement, _, condition = line.partition(";")
        name, floor = re.match(r"[\w.-]+", requirement), re.search(r">=\s*([\w.]+)", requirement)
        if name and ("extra" not in condition or name[0] in _OPTIONAL):
            found[name[0]] = floor[1] if floor else ""
    return found


def _packages() -> Iterator[Finding]:
    for name, floor in _floors().items():
        missing = "note" if name in _OPTIONAL else "broken"
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            needed = f", needs {floor} or newer" if floor else ""
            words = f'"lebm[{_OPTIONAL[name]}]"' if name in _OPTIONAL else name
            yield missing, name, f"not installed{needed}: pip install {words}"
            continue
        if (name, version) in _BAD:
            yield "broken", name, f"{version} {_BAD[name, version]}"
        elif _numbers(version) < _numbers(floor):
            yield missing, name, f"{version} is older than {floor}"
        else:
            yield "ok", name, version


def _torch_pair() -> Iterator[Finding]:
    import torch

    try:
        import torchvision

        # fails where the two were not built for one another
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        yield "broken", "torch pair", f"torchvision does not fit torch {torch.__version__}: {reason}"
        return
    pair = f"torch {torch.__version__} and torchvision {torchvision.__version__}"
    yield "ok", "torch pair", f"{pair} work together"


def _devices() -> Iterator[Finding]:
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "ok", "cpu", f"{usable} usable cores, torch uses {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
            yield "ok", f"cuda:{index}", f"{torch.cuda.get_device_name(index)}, {memory}"
    elif torch.version.cuda and shutil.which("nvidia-smi"):
        built = f"torch (built for CUDA {torch.version.cuda})"
        yield "note", "cuda", f"a driver is installed, but {built} finds no device"
    else:
        yield "ok", "cuda", "no GPU; everything runs on the CPU"


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _cache() -> Path:
    return Path(os.environ.get("LEBM_CACHE") or "~/.cache/lebm").expanduser()


def _disk() -> Iterator[Finding]:
    for name, path in (("disk here", Path.cwd()), ("disk cache", _cache())):
        free = shutil.disk_usage(_existing(path)).free / 2**30
        writable = os.access(_existing(path), os.W_OK)
        level = "broken" if not writable else "note" if free < 2 else "ok"
        yield level, name, f"{path}: {free:.1f} GiB free{'' if writable else ', not writable'}"


def _temporary() -> Iterator[Finding]:
    folder = Path(tempfile.gettempdir())
    text = f"{folder}"
    if folder.stat().st_dev != Path.cwd().stat().st_dev:
        text += " is on another file system than this folder; checkpoints do not pass through it"
    yield "ok", "temporary", text


def _wandb() -> Iterator[Finding]:
    try:
        wandb = importlib.import_module("wandb")
    except Exception as error:
        reason = f"cannot be imported ({type(error).__name__})"
        yield "note", "wandb", f"{reason}; runs log to metrics.csv and TensorBoard"
        return
    mode = os.environ.get("WANDB_MODE", "as the recipe says")
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    known = "WANDB_API_KEY" in os.environ or (
        netrc.is_file() and "wandb" in netrc.read_text(encoding="utf-8", errors="ignore")
    )
    advice = "not logged in: the overlay loggers/wandb records offline, wandb login and wandb sync publish"
    if known:
        advice = "logged in"
    yield "ok", "wandb", f"{wandb.__version__}, mode {mode}, {advice}"


def _inception() -> Iterator[Finding]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    hub = Path(os.environ.get("TORCH_HOME") or cache).expanduser() / "hub"
    found = [path for path in (hub / "checkpoints" / _INCEPTION, hub / _INCEPTION) if path.is_file()]
    if found:
        yield "ok", "FID weights", f"{found[0]}"
    else:
        lacking = f"{_INCEPTION} is not in {hub / 'checkpoints'}"
        yield "note", "FID weights", f"{lacking}; FID downloads it, or put it there"


def _data_cache() -> Iterator[Finding]:
    images = _cache() / "images"
    count = sum(1 for _ in images.glob("*/*/meta.json")) if images.is_dir() else 0
    yield "ok", "image cache", f"{images}: {count} decoded split(s)"
