"""Opening checkpoints: plain data in, a rebuilt model out, nothing executed on the way."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from lebm.errors import UserError
from lebm.trust import build

__all__ = ["find_checkpoint", "load", "read"]

FORMAT = 1


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def find_checkpoint(run_or_file: str | Path) -> Path:
    """The checkpoint of a run folder (``checkpoints/last.ckpt``), or the file itself.

    Raises:
        UserError: if there is none.
    """
    path = Path(run_or_file)
    if path.is_dir():
        last = path / "checkpoints" / "last.ckpt"
        if last.is_file():
            return last
        raise UserError(f"{path}: no checkpoints/last.ckpt in this folder; name a run folder or a .ckpt file")
    if not path.is_file():
        raise UserError(f"{path}: no such run folder or checkpoint")
    return path


def read(path: str | Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """The content of a checkpoint, tensors and plain values only.

    Raises:
        UserError: if the file is damaged, holds pickled objects, or was not written by lebm.
    """
    path = Path(path)
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: refused, it holds more than tensors and plain values (or is damaged)") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a readable checkpoint ({_first_line(error)})") from error
    if not isinstance(content, dict) or "lebm_format" not in content or "state_dict" not in content:
        raise UserError(f"{path}: not a checkpoint written by lebm")
    if content["lebm_format"] > FORMAT:
        raise UserError(f"{path}: written by a newer lebm (format {content['lebm_format']}, this one reads up to {FORMAT}); upgrade lebm")
    return content


def load(run_or_file: str | Path, *, trust: Iterable[str] = (), map_location: str | torch.device = "cpu", weights: str = "ema") -> Any:
    """Rebuild the model of a run folder or checkpoint, in evaluation mode.

    Args:
        run_or_file: a run folder or a ``.ckpt`` file.
        trust: packages, besides lebm and torch.nn, whose classes the checkpoint may name.
        map_location: device of the result.
        weights: ``"ema"`` for the averaged weights where the run kept them (the plain ones otherwise), ``"raw"`` for the plain ones.

    Returns:
        The :class:`~lebm.estimators.LatentEstimator`.

    Raises:
        UserError: if the file is damaged or names a class that is not trusted; then nothing was imported or executed.
    """
    from lebm.estimators.base import LatentEstimator

    if weights not in ("ema", "raw"):
        raise ValueError(f"weights must be 'ema' or 'raw', not {weights!r}")
    path = find_checkpoint(run_or_file)
    content = read(path, map_location)
    try:
        model = build(content.get("hyper_parameters"), LatentEstimator, trust)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    state = content["state_dict"]
    if weights == "raw" and "current_model_state" in content:
        state = content["current_model_state"]
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path}: its weights do not fit the model it describes ({str(error).splitlines()[-1].strip()})") from error
    return model.to(map_location).eval()
