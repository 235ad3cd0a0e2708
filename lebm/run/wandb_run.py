"""What a Weights & Biases run holds of a run folder: its recipe, its values with intervals, its model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def searchable(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved recipe as the config of a run: nested mappings, and callbacks as a list of names.

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
    """Metrics as a run summary, with the ends of an interval below their value, without those of ``None``.

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


def evaluation_values(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The finite values of an ``evaluation.json`` as a run summary, by ``evaluation/<suite>/<split>/<name>``
    and the same with ``/low`` and ``/high``.
    """
    named: dict[str, float] = {}
    for suite, result in evaluation["suites"].items():
        for figure in result["figures"]:
            key = f"evaluation/{suite}/{figure['split']}/{figure['name']}"
            ends = {key: "value", f"{key}/low": "low", f"{key}/high": "high"}
            named |= {name: figure[field] for name, field in ends.items() if figure[field] is not None}
    return named


def log_evaluation(run: Any, evaluation: Mapping[str, Any]) -> None:
    """Attach an evaluation to a run: its values in the summary, and all of them in ``tables/evaluation``."""
    import wandb

    origin = ("checkpoint_sha256", "weights", "method", "seed")
    values = ("value", "low", "high", "n")
    run.summary.update({"evaluation": {name: evaluation[name] for name in origin}})
    run.summary.update(evaluation_values(evaluation))
    rows = [
        [suite, figure["split"], figure["name"], *(figure[name] for name in values)]
        for suite, result in evaluation["suites"].items()
        for figure in result["figures"]
    ]
    run.log(
        {
            "tables/evaluation": wandb.Table(
                columns=["suite", "split", "figure", *values], data=rows, allow_mixed_types=True
            )
        }
    )


class Model:
    """The model of a run as an artifact, if ``log_model`` of the parsed ``trainer.logger`` asks for one."""

    def __init__(self, loggers: Any) -> None:
        self.asked = False
        self.name: str | None = None
        for block in loggers if isinstance(loggers, list) else [loggers]:
            arguments = (block.get("init_args") or {}) if hasattr(block, "get") else {}
            if arguments.get("log_model"):
                self.asked, self.name = True, arguments.get("checkpoint_name")

    def log(self, run: Any, run_dir: Path, metadata: Mapping[str, Any]) -> None:
        """Log ``checkpoints/last.ckpt`` and ``*.safetensors`` of the run folder, if that was asked for."""
        files = [run_dir / "checkpoints" / "last.ckpt", *sorted(run_dir.glob("*.safetensors"))]
        files = [file for file in files if file.is_file()]
        if not self.asked or not files:
            return
        import wandb

        artifact = wandb.Artifact(self.name or f"model-{run.id}", type="model", metadata=dict(metadata))
        for file in files:
            artifact.add_file(str(file), name=file.name)
        run.log_artifact(artifact, aliases=["latest", "last"])
