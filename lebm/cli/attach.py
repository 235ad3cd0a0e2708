"""``--wandb``: the results of a verb in the Weights & Biases run that the training was logged to."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lebm.errors import UserError

__all__ = ["add_wandb", "attach_evaluation", "attach_report", "attached", "check_wandb"]

_HOST = ("settings", "base_url", "host")


def add_wandb(parser: argparse.ArgumentParser) -> None:
    """Add the flags ``--wandb`` and ``--wandb-host``."""
    parser.add_argument(
        "--wandb",
        action="store_true",
        help="also log the results to the Weights & Biases run of the training, under the same id",
    )
    parser.add_argument(
        "--wandb-host",
        metavar="URL",
        help="the server for --wandb, if the training was logged to one that was typed as a flag",
    )


def check_wandb(runs: list[Path], chosen: argparse.Namespace) -> None:
    """Refuse runs that were not logged to Weights & Biases, before anything is measured.

    Raises:
        UserError: with the run folder or the flag.
    """
    if chosen.wandb_host is not None and not re.match(r"https?://\w", chosen.wandb_host):
        raise UserError(
            f"--wandb-host {chosen.wandb_host}: expected an address, such as https://wandb.example"
        )
    if chosen.wandb_host is not None and not chosen.wandb:
        raise UserError("--wandb-host: it is for --wandb, which is not given")
    for run in runs if chosen.wandb else []:
        _settings(run, chosen.wandb_host)


@contextlib.contextmanager
def attached(run: Path, host: str | None) -> Iterator[Any]:
    """The Weights & Biases run of a run folder, opened again.

    The recipe of the folder decides on project, entity and whether the run is offline. It cannot choose a
    host: the API key goes to the host of the user's own login, or to ``host``.

    Args:
        run: the run folder.
        host: address of the server; that of the user's settings if ``None``.

    Raises:
        UserError: if the run was not logged there, its recipe names a host, or wandb refuses.
    """
    import wandb

    from lebm.cli.failures import wandb_line

    try:
        opened = wandb.init(**_settings(run, host))
        try:
            yield opened
        finally:
            opened.finish()
    except Exception as error:
        if type(error).__module__.startswith("wandb."):
            raise UserError(wandb_line(error)) from error
        raise


def attach_evaluation(run: Path, target: Path, host: str | None) -> None:
    """Log an evaluation, and the model beside it if the recipe of the run asks for artifacts.

    Args:
        run: the run folder.
        target: its ``evaluation.json``.
        host: as of :func:`attached`.
    """
    from lebm.evaluation.record import read_evaluation
    from lebm.run.folder import stored_json
    from lebm.run.wandb_run import Model, evaluation_values, log_evaluation

    evaluation = read_evaluation(target)
    facts = {name: evaluation[name] for name in ("method", "seed", "weights", "checkpoint_sha256")}
    recipe = stored_json(run, "summary.json").get("recipe")
    with attached(run, host) as opened:
        log_evaluation(opened, evaluation)
        metadata = {**facts, "recipe": recipe, "figures": evaluation_values(evaluation)}
        Model(_loggers(run)).log(opened, run, metadata)


def attach_report(runs: list[Path], page: Path, host: str | None) -> None:
    """Log a page to each of the runs that it compares; arguments as of :func:`attached`."""
    import wandb

    for run in runs:
        with attached(run, host) as opened:
            opened.log({"pages/report": wandb.Html(str(page), inject=False)})


def _loggers(run: Path) -> list[dict[str, Any]]:
    """The Weights & Biases loggers in the recipe of a run folder, which may be a stranger's."""
    from lebm.config.checks import load_recipe

    recipe = run / "config.yaml"
    trainer = load_recipe(recipe).get("trainer") if recipe.is_file() else None
    chosen = trainer.get("logger") if isinstance(trainer, dict) else None
    return [
        block
        for block in (chosen if isinstance(chosen, list) else [chosen])
        if isinstance(block, dict) and str(block.get("class_path")).endswith(".WandbLogger")
    ]


def _settings(run: Path, host: str | None) -> dict[str, Any]:
    """What ``wandb.init`` needs to open the run of a run folder again."""
    from lebm import checkpoint
    from lebm.config.stored import stored_logger
    from lebm.run.loggers import stored_run_id

    blocks = _loggers(run)
    if not blocks:
        raise UserError(f"{run}: --wandb needs a run folder that was trained with -c loggers/wandb")
    harmless = stored_logger(run, blocks[0] if host is None else _without_host(blocks[0]))
    if harmless is None:
        raise UserError(
            f"{run / 'config.yaml'}: its logger names a host or a folder, which a run folder may not choose;"
            " type the host as --wandb-host URL"
        )
    arguments = {**harmless["init_args"], **harmless.get("dict_kwargs", {})}
    named = arguments.get("version") or arguments.get("id")
    run_id = named or stored_run_id(checkpoint.newest(run)[1])
    if run_id is None:
        raise UserError(f"{run}: there is no id of a Weights & Biases run in its checkpoint")
    settings = {name: arguments[name] for name in ("project", "entity", "mode") if name in arguments}
    if arguments.get("offline") and "WANDB_MODE" not in os.environ:
        settings["mode"] = "offline"
    if host is not None:
        settings["settings"] = {"base_url": host}
    return {**settings, "id": run_id, "dir": str(run.absolute()), "resume": "allow"}


def _without_host(block: dict[str, Any]) -> dict[str, Any]:
    levels = {name: block[name] for name in ("init_args", "dict_kwargs") if isinstance(block.get(name), dict)}
    kept = {
        name: {key: value for key, value in level.items() if key not in _HOST}
        for name, level in levels.items()
    }
    return {**block, **kept}
