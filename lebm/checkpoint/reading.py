"""Opening checkpoints: plain data in, a rebuilt model out, nothing executed on the way."""

from __future__ import annotations

import logging
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from lebm import hub, pretrained
from lebm.checkpoint.model_file import is_model_file, read_model_file
from lebm.checkpoint.rebuild import build, outline
from lebm.checkpoint.seal import is_sealed, open_ordinary
from lebm.errors import UserError, UserNotice, printable
from lebm.files import is_inside

__all__ = ["FORMAT", "SEALED_FORMAT", "find_checkpoint", "load", "located", "newest", "read", "rebuilt"]

FORMAT = 1
"""What a model describes; any trainer may write it."""
SEALED_FORMAT = 2
"""The same with a checksum of the whole file, as :class:`lebm.checkpoint.writing.AtomicCheckpointIO` writes
it.
"""

Model = TypeVar("Model", bound=nn.Module)

log = logging.getLogger("lebm.checkpoint")


def find_checkpoint(run_or_file: str | Path) -> Path:
    """The newest good checkpoint of a run folder, or the file itself.

    Raises:
        UserError: if there is none.
    """
    path = located(run_or_file)
    return newest(path)[0] if path.is_dir() else path


def located(run_or_file: str | Path) -> Path:
    """The run folder or file that is meant: a path, ``pretrained/NAME``, or ``hub:USER/NAME[@REVISION]``.

    A model of the Hub is downloaded, unless this machine has that revision already.

    Raises:
        UserError: if there is none.
    """
    path, name = Path(run_or_file), str(run_or_file)
    if path.exists():
        return path
    if name.startswith(pretrained.PREFIX):
        return pretrained.find(name)
    if name.startswith(hub.PREFIX):
        return hub.fetch(name)
    raise UserError(f"{path}: no such run folder or checkpoint")


def newest(run_or_file: str | Path) -> tuple[Path, dict[str, Any]]:
    """The newest good checkpoint of a run folder with its content, or those of the file itself.

    That is ``checkpoints/last.ckpt``, unless it is damaged or missing, or a kill has left a file of a later
    step beside it. A file that is passed over because it is damaged is named in a warning.

    Raises:
        UserError: if there is none; if a single file was named and it is damaged, with the name of a good one
            beside it.
    """
    path = located(run_or_file)
    if not path.is_dir():
        return path, read(path)
    folder = path / "checkpoints"
    found = {file: _step_in_name(file) for file in folder.glob("*.ckpt") if not file.name.startswith(".")}
    ordered = sorted(
        found, key=lambda file: (file.name != "last.ckpt", -found[file], -file.lstat().st_mtime_ns)
    )
    if not ordered:
        raise UserError(f"{path}: no checkpoints/last.ckpt in this folder; name a run folder or a .ckpt file")
    refused: list[str] = []
    best: tuple[Path, dict[str, Any]] | None = None
    for file in ordered:
        if best is not None and found[file] <= int(best[1].get("global_step", 0)):
            continue
        try:
            best = file, _read(_inside(file, path))
        except UserError as error:
            refused.append(str(error))
    if best is None:
        others = f"; none of the other {len(refused) - 1} beside it is good" if len(refused) > 1 else ""
        raise UserError(f"{refused[0]}{others}")
    for line in refused:
        log.warning("%s", printable(f"{line}; using {best[0]}"))
    return best


def _step_in_name(file: Path) -> int:
    step = re.search(r"step=(\d+)", file.name)
    return int(step[1]) if step else -1


def _inside(file: Path, run: Path) -> Path:
    """A link out of a run folder, which may have come from anywhere, is not followed."""
    if not is_inside(file, run):
        raise UserError(
            f"{file}: refused, a link to a file outside the run folder; name that file itself if you trust it"
        )
    return file


def read(path: str | Path, described: bool = True) -> dict[str, Any]:
    """The content of a checkpoint, tensors on the CPU and plain values only.

    Args:
        path: the file.
        described: ask that the file says which model it holds, as all do that lebm's methods write.

    Raises:
        UserError: if the file is damaged, holds pickled objects, or was not written by lebm.
    """
    try:
        return _read(Path(path), described)
    except UserError as error:
        raise UserError(f"{error}{_beside(Path(path))}") from error


def _read(path: Path, described: bool = True) -> dict[str, Any]:
    if is_model_file(path):
        return {"lebm_format": SEALED_FORMAT, **read_model_file(path)}
    try:
        with open_ordinary(path) as file:
            sealed = is_sealed(file)
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: refused, it holds more than tensors and plain values (or is damaged)"
        ) from error
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such run folder or checkpoint") from error
    except RecursionError as error:
        raise UserError(f"{path}: refused, nested too deeply") from error
    except Exception as error:  # torch's reader meets damage with errors of many kinds
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{path}: not a readable checkpoint ({first})") from error
    _check(path, content, sealed, described)
    return content


def _check(path: Path, content: Any, sealed: bool, described: bool) -> None:
    wanted = ("lebm_format", "state_dict") if described else ("state_dict",)
    if (
        not isinstance(content, dict)
        or any(name not in content for name in wanted)
        or not isinstance(content["state_dict"], Mapping)
    ):
        raise UserError(f"{path}: not a checkpoint written by lebm")
    version = content.get("lebm_format")
    if described and (not isinstance(version, int) or isinstance(version, bool) or version < 1):
        raise UserError(f"{path}: not a checkpoint written by lebm (format {str(version)[:40]!r})")
    if isinstance(version, int) and version > SEALED_FORMAT:
        raise UserError(
            f"{path}: written by a newer lebm (format {version}, this one reads up to {SEALED_FORMAT});"
            " upgrade lebm"
        )
    if version == SEALED_FORMAT and not sealed:
        raise UserError(f"{path}: not a readable checkpoint (its checksum is missing)")
    step = content.get("global_step", 0)
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise UserError(f"{path}: not a checkpoint written by lebm (global_step {str(step)[:40]!r})")
    if not all(isinstance(content.get(name, {}), Mapping) for name in ("loops", "callbacks")):
        raise UserError(f"{path}: not a checkpoint written by lebm (its loops or callbacks are no mapping)")


def _beside(path: Path) -> str:
    """Names a good checkpoint beside a bad one; in a run folder :func:`newest` finds it by itself."""
    if path.parent.name != "checkpoints":
        return ""
    others = [file for file in path.parent.glob("*.ckpt") if file != path]
    for other in sorted(others, key=lambda file: -file.lstat().st_mtime_ns):
        try:
            with open_ordinary(other) as file:
                if is_sealed(file):
                    return f"; {other} beside it is good"
        except (OSError, ValueError):
            continue
    return ""


def load(
    run_or_file: str | Path,
    expected: type[Model],
    *,
    trust: Iterable[str] = (),
    map_location: str | torch.device = "cpu",
    weights: str = "ema",
) -> Model:
    """Rebuild the model of a run folder or checkpoint, in evaluation mode; :func:`lebm.load` is the same for
    any method.

    Args:
        run_or_file: a run folder, a ``.ckpt`` or ``.safetensors`` file, ``pretrained/NAME``, or
            ``hub:USER/NAME[@REVISION]``.
        expected: the class that the model must be an instance of.
        trust: packages, besides lebm and torch.nn, whose classes the checkpoint may name.
        map_location: device of the result.
        weights: ``"ema"`` for the averaged weights where the run kept them (the plain ones otherwise),
            ``"raw"`` for the plain ones.

    Returns:
        The model. Its ``loaded_weights`` is ``"averaged"``, ``"raw"``, or ``"plain"`` for a run without
        averages.

    Raises:
        UserError: if the file is damaged or names a class that is not trusted; then nothing was imported or
            executed.
    """
    path, content = newest(run_or_file)
    return rebuilt(path, content, expected, trust=trust, map_location=map_location, weights=weights)


def rebuilt(
    path: Path,
    content: Mapping[str, Any],
    expected: type[Model],
    *,
    trust: Iterable[str] = (),
    map_location: str | torch.device = "cpu",
    weights: str = "ema",
) -> Model:
    """The model of a checkpoint that was read by :func:`newest`; other arguments and errors as of
    :func:`load`.

    Args:
        path: the file, for messages and for its kind.
        content: what it holds.
    """
    if weights not in ("ema", "raw"):
        raise ValueError(f"weights must be 'ema' or 'raw', not {weights!r}")
    state = content["state_dict"]
    averaged = isinstance(content.get("current_model_state"), Mapping)
    kind = ("averaged" if weights == "ema" else "raw") if averaged else "plain"
    if is_model_file(path):
        kind = str(content["facts"].get("weights", kind))
        if weights == "raw" and kind == "averaged":
            raise UserError(f"{path}: holds the averaged weights of its run only, not the raw ones")
    if weights == "raw" and averaged:
        state = content["current_model_state"]
    try:
        # Sizes are compared before memory is spent, since a description may ask for any.
        misfit = outline(content.get("hyper_parameters"), expected, state, trust)
        model = None if misfit else build(content.get("hyper_parameters"), expected, trust)
        if model is not None:
            model.load_state_dict(state)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (RuntimeError, TypeError, LookupError, AttributeError, ValueError, OverflowError) as error:
        misfit = str(error).splitlines()[-1].strip()[:200]
    if misfit:
        raise UserError(f"{path}: its weights do not fit the model it describes ({misfit})")
    assert model is not None
    named = dict(model.named_parameters())
    if broken := [name for name, value in named.items() if not value.isfinite().all()]:
        warnings.warn(
            f"{path}: NaN or infinite weights in {len(broken)} of {len(named)} tensors, first in {broken[0]};"
            " what the model draws or scores says nothing, so take an earlier checkpoint",
            UserNotice,
            stacklevel=4,
        )
    model.loaded_weights = kind
    return model.to(map_location).eval()
