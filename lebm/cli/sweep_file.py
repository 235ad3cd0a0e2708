"""``lebm sweep --wandb FILE``: the same sweep as a file for ``wandb sweep`` and its agents."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lebm.cli.common import tell
from lebm.errors import UserError
from lebm.files import replaced

if TYPE_CHECKING:
    from lebm.config.parser import RecipeCLI

__all__ = ["LOGGER", "add_sweep_file", "write_sweep_file"]

LOGGER = ("-c", "loggers/wandb", "--trainer.logger.init_args.offline", "false")
"""Words for ``lebm fit``: a sweep's agent reads the metric of a run from the server."""

_SCRIPT = (
    'run={folder}/$WANDB_RUN_ID; trap \'kill -TERM "$fit"\' TERM; {fit} --run_dir "$run" "$@" & fit=$!;'
    ' wait "$fit" || {{ wait "$fit"; exit 1; }}; exec {evaluate}'
)
"""The agent chooses the run's id and puts it into the environment, so the folder of a run has that name.

The training runs in the background, because a shell handles a signal only between its foreground commands.
So the training gets the signal of an agent that stops it, and writes a checkpoint. The evaluation takes the
place of the shell.
"""


def add_sweep_file(parser: argparse.ArgumentParser) -> None:
    """Add the flags ``--wandb``, ``--search``, ``--metric`` and ``--goal``."""
    parser.add_argument(
        "--wandb", type=Path, metavar="FILE", help="train nothing; write a file for wandb sweep"
    )
    parser.add_argument(
        "--search",
        choices=("grid", "random", "bayes"),
        default="grid",
        help="how the agents of --wandb choose values (default grid)",
    )
    parser.add_argument(
        "--metric",
        help="key that --wandb optimises, such as evaluation/image/test/reconstruction_mse; by default the"
        " AUROC with a held-out class, the perplexity of sentences, else the error of reconstructions",
    )
    parser.add_argument("--goal", choices=("minimize", "maximize"), help="what is better (default minimize)")


def write_sweep_file(
    chosen: argparse.Namespace,
    parsed: RecipeCLI,
    folder: Path,
    parameters: dict[str, list[str]],
    fit_words: Sequence[str],
    evaluate_words: Sequence[str],
) -> None:
    """Write ``chosen.wandb``.

    Args:
        chosen: the flags of ``lebm sweep``.
        parsed: the recipe with the words of the first cell.
        folder: of the run folders.
        parameters: values by argument.
        fit_words: further words for ``lebm fit``.
        evaluate_words: further words for ``lebm evaluate``.

    Raises:
        UserError: if the file exists, or no metric is known for these suites.
    """
    if chosen.wandb.exists():
        raise UserError(f"{chosen.wandb} exists; choose another file with --wandb")
    name, goal = (chosen.metric, "minimize") if chosen.metric else _metric(chosen, parsed)
    fit = shlex.join(["lebm", "fit", "-c", chosen.config, *LOGGER, *fit_words])
    evaluate = f'lebm evaluate "$run" {shlex.join(["--wandb", *evaluate_words])}'
    script = _SCRIPT.format(folder=shlex.quote(str(folder)), fit=fit, evaluate=evaluate)
    content: dict[str, Any] = {
        "program": "lebm",
        "command": ["sh", "-c", script, "lebm", "${args}"],
        "method": chosen.search,
        "metric": {"name": name, "goal": chosen.goal or goal},
        "parameters": {
            argument: {"values": [yaml.safe_load(value) for value in values]}
            for argument, values in parameters.items()
        },
    }
    with replaced(chosen.wandb) as unfinished:
        unfinished.write_text(yaml.safe_dump(content, sort_keys=False, width=100), encoding="utf-8")
    tell(f"lebm: {chosen.wandb}: start it with wandb sweep {shlex.quote(str(chosen.wandb))}")


def _metric(chosen: argparse.Namespace, parsed: RecipeCLI) -> tuple[str, str]:
    """What is measured on the test split of such data, and whether more is better."""
    from lebm.models import CategoricalLikelihood

    suites = set(chosen.suite) - {"all"}
    data = parsed.config.data.get("init_args", {}) if parsed.config.data else {}
    if isinstance(parsed.model.observation_model, CategoricalLikelihood):
        found = ("evaluation/text/test/perplexity", "minimize")
    elif data.get("held_out_label") is not None and (not suites or "anomaly" in suites):
        found = ("evaluation/anomaly/lebm/auroc/anomaly_score", "maximize")
    else:
        found = ("evaluation/image/test/reconstruction_mse", "minimize")
    suite = found[0].split("/")[1]
    if suites and "all" not in chosen.suite and suite not in suites:
        raise UserError(f"--suite: {suite} is not among them; name what to optimise with --metric")
    return found
