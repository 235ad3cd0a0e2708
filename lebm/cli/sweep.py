"""``lebm sweep``: one recipe for every value of an argument, or every combination of values of several,
trained, evaluated and kept as one JSON a cell; resumable.
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
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from lebm.cli.common import tell
from lebm.cli.data_path import check_flagged_data
from lebm.cli.flags import VerbParser
from lebm.cli.validate_recipe import built
from lebm.config.recipes import find, run_name
from lebm.config.request import read_request
from lebm.errors import UserError, printable
from lebm.evaluation.names import SUITE_NAMES
from lebm.run.folder import write_json

__all__ = ["main"]

SHORT = {"held_out_label": "data.init_args.held_out_label", "seed": "seed_everything"}


def main(argv: list[str]) -> int:
    """``lebm sweep -c RECIPE --over held_out_label 1,4,5,7,9``; words it does not know go to ``lebm fit``."""
    parser = VerbParser(
        "lebm sweep",
        description="Train and evaluate a recipe for every value of an argument, or every combination of"
        " values of several. A cell is a run folder and a JSON; what is done is skipped and what was"
        " interrupted goes on. Further words go to lebm fit.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "-c", "--config", required=True, help="a recipe, by path or by a name that lebm ls prints"
    )
    parser.add_argument(
        "--over",
        nargs=2,
        action="append",
        metavar=("ARGUMENT", "VALUES"),
        required=True,
        help="for example: held_out_label 1,4,5,7,9, or latent_dim 4,8; repeat it for a grid",
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
    chosen, fit_words = parser.parse_known_args(argv)
    given = {word.partition("=")[0] for word in fit_words}
    if given & {"--run_dir", "--resume"}:
        raise UserError("a sweep names and resumes its runs itself; use --runs for their folder")
    find(chosen.config)
    cells = list(_cells(chosen))
    if twice := given.intersection(cells[0]["words"]):
        raise UserError(f"{twice.pop()}: given beside --over, which has its values; leave one of them out")
    # What every cell would be refused for, such as an unknown argument, is refused before the first one.
    request = read_request("validate-recipe", ["-c", chosen.config, *cells[0]["words"], *fit_words])
    check_flagged_data(request)
    built(request)
    done = [cell for cell in cells if _finish(cell, chosen, fit_words)]
    if not chosen.dry_run:
        _print_table(cells, done)
    return 0 if len(done) == len(cells) else 1


def _cells(chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    axes: dict[str, tuple[str, list[str]]] = {}
    for argument, values in chosen.over:
        flag = f"--{SHORT.get(argument, argument)}"
        if flag in axes:
            raise UserError(
                f"--over {argument}: given twice; write all values once, as in --over {argument} 1,4"
            )
        axes[flag] = argument, list(dict.fromkeys(part.strip() for part in values.split(",") if part.strip()))
        if not axes[flag][1]:
            raise UserError(f"--over {argument}: give values, as in --over {argument} 1,4,5")
        for value in axes[flag][1]:
            if not re.fullmatch(r"[\w.+-]+", value):
                raise UserError(
                    f"--over {argument}: {value!r} is not a plain value, as names of folders need"
                )
    arguments = [argument for argument, _ in axes.values()]
    last = [argument.rsplit(".", 1)[-1] for argument in arguments]
    short = last if len(set(last)) == len(last) else arguments
    recipe = run_name(chosen.config)
    folder = chosen.runs or Path("runs") / f"sweep-{recipe}"
    results = chosen.results or folder
    for values in product(*(values for _, values in axes.values())):
        name = "_".join(f"{argument}-{value}" for argument, value in zip(short, values, strict=True))
        yield {
            "name": name,
            "argument": ",".join(arguments),
            "value": ",".join(values),
            "words": [word for pair in zip(axes, values, strict=True) for word in pair],
            "run": folder / name,
            "result": results / f"{recipe}-{name}.json",
        }


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
        "argument": cell["argument"],
        "value": cell["value"],
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "fit": json.loads((run / "summary.json").read_text(encoding="utf-8")),
        "evaluation": without_curves(read_evaluation(run / "evaluation.json")),
    }
    write_json(cell["result"], content)
    tell(f"lebm: {cell['name']}: {cell['result']}")


def _print_table(cells: list[dict[str, Any]], done: list[dict[str, Any]]) -> None:
    """The first values of every cell, and the command for the page that has all of them."""
    from rich.console import Console
    from rich.table import Table

    from lebm.evaluation.record import read_evaluation
    from lebm.report.gather import RunRecord
    from lebm.report.pieces import key_figures, own_figure

    records = [
        RunRecord(cell["name"], evaluation=read_evaluation(cell["run"] / "evaluation.json")) for cell in done
    ]
    measured = key_figures(records)[:4]
    table = Table("cell", *(name for _, name in measured))
    for record in records:
        found = [own_figure(record, *key) for key in measured]
        told = [
            "" if one is None else "not finite" if one["value"] is None else f"{one['value']:.4g}"
            for one in found
        ]
        table.add_row(record.name, *told)
    for cell in cells:
        if cell not in done:
            table.add_row(cell["name"], "not done")
    console = Console(width=None if Console().is_terminal else 140)
    console.print(table)
    if done:
        runs = shlex.join(str(cell["run"]) for cell in done)
        tell(f"lebm: the runs side by side: lebm report {runs} --out sweep.html")


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
