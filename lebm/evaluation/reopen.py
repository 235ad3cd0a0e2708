"""The data of a run, opened again, or other data in the form that its model takes."""

import inspect
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import yaml

from lebm.checkpoint import is_model_file
from lebm.checkpoint.rebuild import build, resolve
from lebm.component import public_path
from lebm.data import ArrayData, ImageData, SplitData, TextData
from lebm.data.images import HELD_OUT, by_number
from lebm.data.sources import is_own
from lebm.data.survey import ARRAYS
from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel

__all__ = ["reopen"]

log = logging.getLogger("lebm.evaluation")

_ANY_IMAGES = ("seed", "anomaly_split", "on_error", "cache_dir", "white_level", *HELD_OUT)
_ONE_SOURCE = ("config_name", "revision", "text_column")
"""Arguments of a run's data that also apply to other images, and arguments that apply to its text only."""


def _stored_data(run: Path) -> dict[str, Any]:
    """Return the data section of a run, ``class_path`` and ``init_args``; empty if the recipe is unknown."""
    file = (run if run.is_dir() else run.parent.parent) / "config.yaml"
    if is_model_file(run) or not run.exists() or not file.is_file():
        return {}
    try:
        section = yaml.safe_load(file.read_text(encoding="utf-8")).get("data")
    except (yaml.YAMLError, ValueError, AttributeError) as error:
        raise UserError(f"{file}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(section, dict) or "class_path" not in section:
        return {}
    return {"class_path": section["class_path"], "init_args": dict(section.get("init_args") or {})}


def reopen(
    run: Path,
    data: str | None = None,
    model: LatentModel | None = None,
    limit: int | None = None,
    trust: Iterable[str] = (),
) -> SplitData:
    """Return the data module of a run, whose ``setup`` makes the splits.

    A held-out class given by its number does not apply to other data.

    Args:
        run: run folder, or checkpoint in its ``checkpoints`` folder. A model file or the name of a model has
            no recipe.
        data: ``path`` of other data; the data of the run if ``None``.
        model: model of the run, which determines the size and colours of images and the vocabulary of
            sentences.
        limit: number of rows for validation and for testing, selected by the seed of the data.
        trust: packages besides lebm whose data modules may be built.

    Raises:
        UserError: if the data are unknown, or cannot have the form that the model takes.
    """
    run = Path(run)
    section = _stored_data(run)
    own = bool(section) and is_own(data, section["init_args"].get("path"))
    if not own:
        if data is None:
            raise UserError(f"{run} does not say which data it was trained on; name some with --data")
        section = _elsewhere(data, section, model)
    kind, arguments = resolve(section["class_path"], trust), section["init_args"]
    if not issubclass(kind, SplitData):
        raise UserError(
            f"{run}: its {kind.__name__} is not a data module that can be opened again; name some with --data"
        )
    if issubclass(kind, ImageData) and model is not None:
        with torch.no_grad():
            x = model.decode(torch.zeros(1, model.latent_dim, device=model.device).to(model.dtype))
        shape = tuple(x.shape[1:])
        if len(shape) != 3 or shape[0] not in (1, 3) or shape[1] != shape[2]:
            problem = f"the model makes data of shape {shape}, not square images"
            raise UserError(f"{run}: {problem}; name a .npy or .npz file with --data")
        arguments |= {"image_size": shape[1], "channels": shape[0]}
    module = build(section, SplitData, trust, "data")
    module.foreign = not own
    if isinstance(module, ArrayData | ImageData) or limit is not None:
        module.limit_eval = limit
    if isinstance(module, TextData) and model is not None and (sentences := model.sentences) is not None:
        module.vocabulary, module.max_length = sentences.vocabulary, sentences.generator.max_length
    return module


def _elsewhere(data: str, section: dict[str, Any], model: LatentModel | None) -> dict[str, Any]:
    """Return the data section for other data than the data of a run."""
    text = (
        section.get("class_path", "").endswith(".TextData") if model is None else model.sentences is not None
    )
    kind = TextData if text else ArrayData if data.lower().endswith(ARRAYS) else ImageData
    known, stored = inspect.signature(kind).parameters, section.get("init_args", {})
    kept = {
        name: value
        for name, value in stored.items()
        if name in known and value is not None and (name not in _ONE_SOURCE if text else name in _ANY_IMAGES)
    }
    for name in HELD_OUT:
        if by_number(kept.get(name)):
            log.warning(
                "%s %s is a number of %s and was left out for %s: every class counts as normal there",
                *(name, kept.pop(name), stored.get("path"), data),
            )
    return {"class_path": public_path(kind), "init_args": {**kept, "path": data}}
