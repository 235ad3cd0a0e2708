"""The origin of the weights of a model, as plain values that are stored with them."""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lebm import checkpoint
from lebm._version import __version__
from lebm.estimators.latent_model import LatentModel
from lebm.files import sha256
from lebm.models.observations import event_shape
from lebm.run.folder import plain, stored_json


def export(
    run_or_file: str | Path,
    target: Path,
    *,
    dtype: str = "float32",
    weights: str = "ema",
    trust: tuple[str, ...] | list[str] = (),
) -> LatentModel:
    """Write the model of a run as a model file, and return the model.

    Arguments and errors are those of :func:`lebm.load` and :func:`lebm.checkpoint.write_model_file`.
    """
    file, content = checkpoint.newest(run_or_file)
    model = checkpoint.rebuilt(file, content, LatentModel, trust=trust, weights=weights)  # type: ignore[type-abstract]
    facts = {**_facts(file, content), "observations": _observations(model), "weights": model.loaded_weights}
    checkpoint.write_model_file(target, model, facts, dtype)  # type: ignore[arg-type]
    return model


def _facts(file: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the origin of a model without absolute paths; unknown values are ``None``.

    ``data_key`` is a digest of the sizes, the order and the seed of the data, from the checkpoint.
    """
    if "facts" in content:
        return dict(content["facts"])
    run = file.parent.parent
    summary = stored_json(run, "summary.json") if file.parent.name == "checkpoints" else {}
    config = run / "config.yaml"
    known = file.parent.name == "checkpoints" and config.is_file()
    versions = summary.get("versions") or {}
    data = None
    if isinstance(described := summary.get("data"), Mapping):
        names = ("config_name", "revision", "image_shape", "source_splits", "sizes", "held_out_label")
        found = {name: described[name] for name in names if described.get(name) is not None}
        data = {"path": without_paths(str(described.get("path") or "")), **found}
    root, commit = Path(__file__).resolve().parents[2], ""
    if (root / ".git").exists() and shutil.which("git"):
        asked = ["git", "-C", str(root), "rev-parse", "HEAD"]
        commit = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    states = {name: state for name, state in content.items() if name.endswith("Data")}
    digest = hashlib.sha256(json.dumps(plain(states), sort_keys=True).encode()).hexdigest()
    return {
        "lebm": versions.get("lebm", __version__),
        "torch": versions.get("torch"),
        "export_commit": commit or None,  # of the source tree of this lebm, if it is not an installed package
        "recipe": str(summary["recipe"]).rpartition("recipes/")[2] if summary.get("recipe") else None,
        "recipe_sha256": sha256(config) if known else None,
        "command": without_paths(summary.get("command")),
        "seed": summary.get("seed"),
        "steps": content.get("global_step"),
        "data": data,
        "data_key": digest[:16] if states else None,
        "checkpoint_sha256": sha256(file),
    }


def _observations(model: LatentModel) -> dict[str, Any]:
    if (sentences := model.sentences) is not None:
        return {"kind": "sentences", "max_length": sentences.generator.max_length}
    shape = event_shape(model.likelihood)
    image = shape is not None and len(shape) == 3
    return {
        "kind": "images" if image else "rows",
        "shape": None if shape is None else list(shape),
        "range": [-1, 1] if image else None,
    }


def without_paths(words: Any) -> str | None:
    """Return a command with absolute paths shortened to their last part; ``None`` for other values."""
    if not isinstance(words, str):
        return None
    try:
        parts = shlex.split(words)
    except ValueError:
        return None
    return shlex.join(f".../{Path(part).name}" if os.path.isabs(part) else part for part in parts)
