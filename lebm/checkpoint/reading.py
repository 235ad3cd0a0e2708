"""Reader of checkpoints and model files."""

import hashlib
import io
import logging
import os
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from torch import nn

from lebm import hub
from lebm.checkpoint.model_file import is_model_file, read_model_file
from lebm.checkpoint.rebuild import filled, uncompiled
from lebm.errors import UserError, UserNotice, printable

FORMAT = 1
"""Format of a checkpoint with a model description, which any trainer may write."""
SEALED_FORMAT = 2
"""Format with a checksum of the whole file too, which :mod:`lebm.checkpoint.writing` adds."""

# A zip archive may end with a comment; its length is stored in the two bytes before it.
_MARK = b"lebm sha256 "
_COMMENT = len(_MARK) + 64

Model = TypeVar("Model", bound=nn.Module)

log = logging.getLogger("lebm.checkpoint")


def find_checkpoint(run_or_file: str | Path) -> Path:
    """Return the newest good checkpoint of a run folder, or the file itself."""
    path = hub.located(run_or_file)
    return newest(path)[0] if path.is_dir() else path


def newest(run_or_file: str | Path) -> tuple[Path, dict[str, Any]]:
    """Return the newest intact checkpoint of a run folder with its content, or a file with its content.

    The checkpoint is ``checkpoints/last.ckpt``, unless it is damaged or missing, or a killed run has left a
    later one. A damaged file is named in a warning.

    Raises:
        UserError: if no checkpoint is intact, with the name of a damaged file.
    """
    path = hub.located(run_or_file)
    if not path.is_dir():
        return path, read(path)
    folder = path / "checkpoints"
    files = {file: re.search(r"step=(\d+)", file.name) for file in folder.glob("[!.]*.ckpt")}
    found = {file: int(step[1]) if step else -1 for file, step in files.items()}
    ordered = sorted(found, key=lambda f: (f.name != "last.ckpt", -found[f], -f.lstat().st_mtime_ns))
    refused: list[str] = []
    best: tuple[Path, dict[str, Any]] | None = None
    for file in ordered:
        if best is not None and found[file] <= best[1].get("global_step", 0):
            continue
        try:
            best = file, read(file)
        except UserError as error:
            refused.append(str(error))
    if best is None:
        raise UserError(f"{refused[0]}, and no other checkpoint in the folder is intact")
    for line in refused:
        log.warning("%s", printable(f"{line}; using {best[0]}"))
    return best


def read(path: str | Path, described: bool = True) -> dict[str, Any]:
    """Return the content of a checkpoint: tensors on the CPU and plain values only.

    Args:
        path: the file.
        described: whether the file must describe its model.

    Raises:
        UserError: if the file is damaged, holds pickled objects, or was not written by lebm.
    """
    path = Path(path)
    kind = "model file" if is_model_file(path) else "checkpoint"
    try:
        if is_model_file(path):
            return {"lebm_format": SEALED_FORMAT, **read_model_file(path)}
        return _opened(path, described)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: rejected, because it holds more than tensors and plain values (or is damaged)"
        ) from error
    except Exception as error:  # torch raises many kinds of errors for damaged files
        if isinstance(error, UserError):
            raise UserError(f"{path}: {error}") from error
        first = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise UserError(f"{path}: not a readable {kind} ({first})") from error


def _opened(path: Path, described: bool) -> dict[str, Any]:
    stored = path.read_bytes()
    comment = stored[-_COMMENT:]
    sealed = comment.startswith(_MARK)
    if sealed and comment != _MARK + hashlib.sha256(stored[:-_COMMENT]).hexdigest().encode():
        raise ValueError("its checksum is wrong")
    content = torch.load(io.BytesIO(stored), map_location="cpu", weights_only=True)
    version = content.get("lebm_format", 0) if isinstance(content, dict) else None
    if (
        not isinstance(version, int)
        or not isinstance(content.get("state_dict", {}), Mapping)
        or (described and (version < 1 or "state_dict" not in content))
    ):
        raise UserError("not a checkpoint written by lebm")
    if version > SEALED_FORMAT:
        raise UserError(f"written by a newer lebm (format {version}); upgrade lebm")
    if version == SEALED_FORMAT and not sealed:
        raise UserError("not a readable checkpoint (its checksum is missing)")
    return {**content, "state_dict": uncompiled(content["state_dict"])} if described else content


def rebuilt(
    path: Path,
    content: Mapping[str, Any],
    expected: type[Model],
    *,
    trust: Iterable[str] = (),
    map_location: str | torch.device = "cpu",
    weights: str = "ema",
) -> Model:
    """Return the model of a file read by :func:`newest`; arguments and errors as for :func:`lebm.load`."""
    if weights not in ("ema", "raw"):
        raise ValueError(f"weights must be 'ema' or 'raw', not {weights!r}")
    averaged = "current_model_state" in content
    kind = ("averaged" if weights == "ema" else "raw") if averaged else "plain"
    if is_model_file(path):
        kind = str(content["facts"].get("weights", kind))
        if weights == "raw" and kind == "averaged":
            raise UserError(f"{path}: holds only averaged weights; use weights='ema' (--weights ema)")
    state = content["current_model_state" if weights == "raw" and averaged else "state_dict"]
    try:
        model = filled(content.get("hyper_parameters"), expected, state, trust)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    named = dict(model.named_parameters())
    if broken := [name for name, value in named.items() if not value.isfinite().all()]:
        warnings.warn(
            f"{path}: NaN or infinite weights in {len(broken)} of {len(named)} tensors, first in {broken[0]};"
            " samples and scores are meaningless, so use an earlier checkpoint",
            UserNotice,
            stacklevel=3,
        )
    model.loaded_weights = kind
    return model.to(map_location).eval()


def seal(file: BinaryIO) -> None:
    """Append the checksum of all bytes that ``torch.save`` wrote, as a comment of the archive."""
    file.seek(-2, os.SEEK_END)
    file.write(_COMMENT.to_bytes(2, "little"))
    file.seek(0)
    file.write(_MARK + hashlib.sha256(file.read()).hexdigest().encode())
