"""``lebm sweep``: one recipe for every value of an argument, trained, evaluated and kept as one JSON a cell;
resumable.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lebm.cli.common import tell
from lebm.cli.data_path import check_flagged_data
from lebm.cli.flags import VerbParser
from lebm.cli.sweep_file import LOGGER, add_sweep_file, write_sweep_file
from lebm.cli.validate_recipe import built
from lebm.config.recipes import find, run_name
from lebm.config.request import read_request
from lebm.errors import UserError, printable
from lebm.evaluation.names import SUITE_NAMES
from lebm.run.folder import write_json

if TYPE_CHECKING:
    from lebm.config.parser import RecipeCLI

__all__ = ["main"]

SHORT = {"held_out_label": "data.init_args.held_out_label", "seed": "seed_everything"}


def main(argv: list[str]) -> int:
    """``lebm sweep -c RECIPE --over held_out_label 1,4,5,7,9``; words it does not know go to ``lebm fit``."""
    parser = VerbParser(
        "lebm sweep",
        description="Train and evaluate a recipe for every value of an argument. A cell is a run folder and a"
        " JSON; what is done is skipped and what was interrupted goes on. Further words go to lebm fit.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "-c", "--config", required=True, help="a recipe, by path or by a name that lebm ls prints"
    )
    parser.add_argument(
        "--over",
        nargs=2,
        metavar=("ARGUMENT", "VALUES"),
        required=True,
        help="for example: held_out_label 1,4,5,7,9, or latent_dim 4,8",
    )
    parser.add_argument("--runs", type=Path, help="folder of the run folders (default runs/sweep-RECIPE)")
    parser.add_argument(
        "--results", type=Path, help="folder of the cells' JSON files (default: the folder of the runs)"
    )
    parser.add_argument(
        "--suite",
        action="append",
        default=[],
        choices=(*SUITE_NAMES, "all"),
        help="suites of lebm evaluate (default all), repeatable",
    )
    parser.add_argument(
        "--evaluate", default="", metavar="WORDS", help="further words for lebm evaluate, as one string"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    add_sweep_file(parser)
    chosen, fit_words = parser.parse_known_args(argv)
    if any(word.split("=")[0] in ("--run_dir", "--resume") for word in fit_words):
        raise UserError("a sweep names and resumes its runs itself; use --runs for their folder")
    find(chosen.config)
    cells = list(_cells(chosen))
    parsed = _check(chosen, cells[0], [*(LOGGER if chosen.wandb else ()), *fit_words])
    if chosen.wandb is not None:
        values = [cell["value"] for cell in cells]
        argument = cells[0]["words"][0].removeprefix("--")
        words = _evaluate_words(chosen, fit_words)
        write_sweep_file(chosen, parsed, cells[0]["run"].parent, {argument: values}, fit_words, words)
        return 0
    unfinished = [cell for cell in cells if not _finish(cell, chosen, fit_words)]
    return 1 if unfinished else 0


def _cells(chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    argument, values = chosen.over
    if not values.strip(", "):
        raise UserError(f"--over {argument}: give values, as in --over {argument} 1,4,5")
    recipe = run_name(chosen.config)
    folder = chosen.runs or Path("runs") / f"sweep-{recipe}"
    results = chosen.results or folder
    for value in dict.fromkeys(part.strip() for part in values.split(",") if part.strip()):
        if not re.fullmatch(r"[\w.+-]+", value):
            raise UserError(f"--over {argument}: {value!r} is no plain value, as names of folders need")
        name = f"{argument.rsplit('.', 1)[-1]}-{value}"
        flag = f"--{SHORT.get(argument, argument)}"
        yield {
            "name": name,
            "value": value,
            "words": [flag, value],
            "run": folder / name,
            "result": results / f"{recipe}-{name}.json",
        }


def _check(chosen: argparse.Namespace, cell: dict[str, Any], fit_words: list[str]) -> RecipeCLI:
    """Refuse what every cell would be refused for, such as an unknown argument, before the first one."""
    request = read_request("validate-recipe", ["-c", chosen.config, *cell["words"], *fit_words])
    check_flagged_data(request)
    return built(request)


def _finish(cell: dict[str, Any], chosen: argparse.Namespace, fit_words: list[str]) -> bool:
    """Do what is left of a cell; whether it is complete now."""
    run, result = cell["run"], cell["result"]
    fitted = _status(run / "summary.json") == "finished"
    begun = (run / "config.yaml").is_file() and (run / "checkpoints").is_dir()
    evaluation = run / "evaluation.json"
    if fitted and result.is_file() and _covers(evaluation, chosen.suite):
        tell(f"lebm: {cell['name']}: done, {result}")
        return True
    fit = ["fit", "--resume", str(run)] if begun else ["fit", "-c", chosen.config, "--run_dir", str(run)]
    steps = [] if fitted else [[*fit, *cell["words"], *fit_words]]
    if not _covers(evaluation, chosen.suite) or not fitted:
        steps.append(["evaluate", str(run), *_evaluate_words(chosen, fit_words)])
    for words in steps:
        tell(f"lebm: {cell['name']}: lebm {shlex.join(words)}")
        # A process of its own: a cell that crashes or runs out of memory does not take the others with it.
        if not chosen.dry_run and (
            code := subprocess.run([sys.executable, "-m", "lebm", *words], check=False).returncode
        ):
            if code in (130, 143, -2, -15):
                raise KeyboardInterrupt
            line = f"lebm: {cell['name']}: not done, lebm {words[0]} ended with status {code}"
            print(printable(line), file=sys.stderr)
            return False
    if not chosen.dry_run:
        _write(cell, chosen)
    return True


def _evaluate_words(chosen: argparse.Namespace, fit_words: list[str]) -> list[str]:
    """The words for ``lebm evaluate`` after the run."""
    suites = [word for suite in chosen.suite for word in ("--suite", suite)]
    trusted = [word for pair in pairwise(fit_words) if pair[0] == "--trust" for word in pair]
    return [*suites, *trusted, *shlex.split(chosen.evaluate)]


def _write(cell: dict[str, Any], chosen: argparse.Namespace) -> None:
    from lebm.evaluation.record import read_evaluation, without_curves

    run = cell["run"]
    content = {
        "lebm_sweep": 1,
        "recipe": chosen.config,
        "argument": chosen.over[0],
        "value": cell["value"],
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "fit": json.loads((run / "summary.json").read_text(encoding="utf-8")),
        "evaluation": without_curves(read_evaluation(run / "evaluation.json")),
    }
    write_json(cell["result"], content)
    tell(f"lebm: {cell['name']}: {cell['result']}")


def _status(file: Path) -> str | None:
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("status")
    except (OSError, ValueError, AttributeError):
        return None


def _covers(evaluation: Path, suites: list[str]) -> bool:
    """Whether all suites asked for have been measured."""
    if not evaluation.is_file():
        return False
    from lebm.evaluation.record import read_evaluation

    measured = read_evaluation(evaluation)["suites"]
    return all(suite in measured for suite in (SUITE_NAMES if not suites or "all" in suites else suites))
