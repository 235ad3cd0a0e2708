"""Content of a Weights & Biases run: the recipe, values with intervals, and the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def searchable(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resolved recipe as the config of a run: nested mappings, and callbacks by name.

    Example:
        >>> from lebm.run.wandb_run import searchable
        >>> searchable({"trainer": {"callbacks": [{"class_path": "lebm.callbacks.SampleGrid"}]}})
        {'trainer': {'callbacks': ['SampleGrid']}}
    """
    trainer = recipe.get("trainer")
    if not isinstance(trainer, Mapping) or not trainer.get("callbacks"):
        return dict(recipe)
    chosen = trainer["callbacks"]
    paths = [block.get("class_path") for block in (chosen if isinstance(chosen, list) else [chosen])]
    return {**recipe, "trainer": {**trainer, "callbacks": [str(path).rpartition(".")[2] for path in paths]}}


def with_ends(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return metrics as a run summary, with the ends of an interval below its value, without ``None``.

    Example:
        >>> from lebm.run.wandb_run import with_ends
        >>> with_ends({"test/nll": 2.0, "test/nll_low": 1.5, "test/nll_high": None, "loss_low": 1.0})
        {'test/nll': 2.0, 'test/nll/low': 1.5, 'loss_low': 1.0}
    """
    named = {}
    for name, value in metrics.items():
        base, _, end = name.rpartition("_")
        if value is not None:
            named[f"{base}/{end}" if end in ("low", "high") and base in metrics else name] = value
    return named


def log_model(run: Any, loggers: Any, run_dir: Path, metadata: Mapping[str, Any]) -> None:
    """Log ``checkpoints/last.ckpt`` as an artifact, if ``log_model`` of ``trainer.logger`` asks."""
    import wandb

    for block in loggers if isinstance(loggers, list) else [loggers]:
        arguments = (block.get("init_args") or {}) if hasattr(block, "get") else {}
        if arguments.get("log_model"):
            name = arguments.get("checkpoint_name") or f"model-{run.id}"
            artifact = wandb.Artifact(name, type="model", metadata=dict(metadata))
            artifact.add_file(str(run_dir / "checkpoints" / "last.ckpt"), name="last.ckpt")
            run.log_artifact(artifact, aliases=["latest", "last"])
