"""``--wandb``: the results of a verb in the Weights & Biases run that the training was logged to."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lebm.config.recipes import load_recipe
from lebm.errors import UserError


def add_wandb(parser: argparse.ArgumentParser) -> None:
    """Add the flag ``--wandb``."""
    parser.add_argument(
        "--wandb",
        action="store_true",
        help="also log the results to the Weights & Biases run of the training, under the same id",
    )


def check_wandb(runs: list[Path]) -> None:
    """Refuse runs that were not logged to Weights & Biases, before anything is measured."""
    for run in runs:
        _settings(run)


def attach_evaluation(run: Path, target: Path) -> None:
    """Log an evaluation, and the model beside it if the recipe of the run asks for artifacts."""
    from lebm.evaluation.record import read_evaluation
    from lebm.run.folder import stored_json
    from lebm.run.wandb_run import Model, evaluation_values, log_evaluation

    evaluation = read_evaluation(target)
    facts = {name: evaluation[name] for name in ("method", "seed", "weights", "checkpoint_sha256")}
    facts |= {
        "recipe": stored_json(run, "summary.json").get("recipe"),
        "figures": evaluation_values(evaluation),
    }
    with _opened(run) as opened:
        log_evaluation(opened, evaluation)
        Model(_logger(run)).log(opened, run, facts)


def attach_report(runs: list[Path], page: Path) -> None:
    """Log a page to each of the runs that it compares."""
    import wandb

    for run in runs:
        with _opened(run) as opened:
            opened.log({"pages/report": wandb.Html(str(page), inject=False)})


@contextlib.contextmanager
def _opened(run: Path) -> Iterator[Any]:
    """The Weights & Biases run of a run folder, with the user's own login and environment."""
    import wandb

    from lebm.cli.training import wandb_line

    try:
        with wandb.init(**_settings(run), resume="allow") as opened:
            yield opened
    except wandb.Error as error:
        raise UserError(wandb_line(error)) from error


def _logger(run: Path) -> dict[str, Any]:
    """The Weights & Biases logger in the recipe of a run folder."""
    recipe = load_recipe(run / "config.yaml") if (run / "config.yaml").is_file() else {}
    chosen = (recipe.get("trainer") or {}).get("logger")
    for block in chosen if isinstance(chosen, list) else [chosen]:
        if isinstance(block, dict) and str(block.get("class_path")).endswith("WandbLogger"):
            return block
    raise UserError(f"{run}: --wandb needs a run folder that was trained with -c loggers/wandb")


def _settings(run: Path) -> dict[str, Any]:
    """The id, project, entity and mode of the Weights & Biases run, for ``wandb.init``."""
    from lebm import checkpoint
    from lebm.run.loggers import stored_run_id

    block = _logger(run)
    known = {**(block.get("init_args") or {}), **(block.get("dict_kwargs") or {})}
    run_id = known.get("version") or known.get("id") or stored_run_id(checkpoint.newest(run)[1])
    if run_id is None:
        raise UserError(f"{run}: there is no id of a Weights & Biases run in its checkpoint")
    if known.get("offline") and "WANDB_MODE" not in os.environ:
        known["mode"] = "offline"
    named = {name: known[name] for name in ("project", "entity", "mode") if known.get(name)}
    return {**named, "id": run_id, "dir": str(run.absolute())}
