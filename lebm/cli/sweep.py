"""``lebm sweep``: one recipe for every value of an argument, or every combination of values of several,
trained, evaluated and kept as one JSON a cell; resumable.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from lebm.cli.flags import VerbParser
from lebm.cli.validate_recipe import built
from lebm.config.recipes import find, run_name
from lebm.config.request import check_flagged_data, read_request
from lebm.errors import UserError, printable, tell
from lebm.evaluation.names import SUITE_NAMES
from lebm.run.folder import stored_json, write_json

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
    suites, places = (*SUITE_NAMES, "all"), ("ARGUMENT", "VALUES")
    parser.add_argument(
        "-c", "--config", required=True, help="a recipe: a path, or a name that lebm ls prints"
    )
    over = "for example: held_out_label 1,4,5,7,9, or latent_dim 4,8; repeat it for a grid"
    parser.add_argument("--over", nargs=2, action="append", metavar=places, required=True, help=over)
    parser.add_argument("--runs", type=Path, help="folder of the run folders (default: runs/sweep-RECIPE)")
    parser.add_argument("--results", type=Path, help="folder of the JSON files (default: that of the runs)")
    suite = "suite of lebm evaluate, repeatable (default: all)"
    parser.add_argument("--suite", action="append", default=[], choices=suites, help=suite)
    words = "further words for lebm evaluate, as one string"
    parser.add_argument("--evaluate", default="", metavar="WORDS", help=words)
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
    """Every combination of values, with its name, its words for ``lebm fit`` and its files."""
    axes: dict[str, list[str]] = {}
    for argument, values in chosen.over:
        flag = f"--{SHORT.get(argument, argument)}"
        if flag in axes:
            raise UserError(f"--over {argument}: given twice; write all values once, as in {argument} 1,4")
        axes[flag] = [part.strip() for part in values.split(",") if part.strip()]
        if not axes[flag]:
            raise UserError(f"--over {argument}: give values, as in --over {argument} 1,4,5")
        for value in axes[flag]:
            if not re.fullmatch(r"[\w.+-]+", value):
                raise UserError(f"--over {argument}: {value!r} cannot be the name of a folder")
    arguments = [argument for argument, _ in chosen.over]
    last = [argument.rpartition(".")[2] for argument in arguments]
    short = last if len(set(last)) == len(last) else arguments
    recipe = run_name(chosen.config)
    folder = chosen.runs or Path("runs") / f"sweep-{recipe}"
    for values in product(*map(dict.fromkeys, axes.values())):
        name = "_".join(f"{argument}-{value}" for argument, value in zip(short, values, strict=True))
        yield {
            "name": name,
            "argument": ",".join(arguments),
            "value": ",".join(values),
            "words": [word for pair in zip(axes, values, strict=True) for word in pair],
            "run": folder / name,
            "result": (chosen.results or folder) / f"{recipe}-{name}.json",
        }


def _finish(cell: dict[str, Any], chosen: argparse.Namespace, fit_words: list[str]) -> bool:
    """Do what is left of a cell; whether it is complete now."""
    run = cell["run"]
    fitted = stored_json(run, "summary.json").get("status") == "finished"
    measured = fitted and _covers(run / "evaluation.json", chosen.suite)
    if measured and cell["result"].is_file():
        tell(f"lebm: {cell['name']}: done, {cell['result']}")
        return True
    begun = (run / "config.yaml").is_file() and (run / "checkpoints").is_dir()
    start = ["--resume", str(run)] if begun else ["-c", chosen.config, "--run_dir", str(run)]
    suites = [word for suite in chosen.suite for word in ("--suite", suite)]
    trusted = [word for pair in pairwise(fit_words) if pair[0] == "--trust" for word in pair]
    steps = [] if fitted else [["fit", *start, *cell["words"], *fit_words]]
    steps += [] if measured else [["evaluate", str(run), *suites, *trusted, *shlex.split(chosen.evaluate)]]
    for words in steps:
        tell(f"lebm: {cell['name']}: lebm {shlex.join(words)}")
        if chosen.dry_run:
            continue
        # A process of its own: a cell that crashes or runs out of memory does not take the others with it.
        code = subprocess.run([sys.executable, "-m", "lebm", *words], check=False).returncode
        if code in (130, 143, -2, -15):
            raise KeyboardInterrupt
        if code:
            line = f"lebm: {cell['name']}: not done, lebm {words[0]} ended with status {code}"
            print(printable(line), file=sys.stderr)
            return False
    if not chosen.dry_run:
        _write(cell, chosen)
    return True


def _write(cell: dict[str, Any], chosen: argparse.Namespace) -> None:
    from lebm.evaluation.record import read_evaluation, without_curves

    run = cell["run"]
    content = {
        "lebm_sweep": 1,
        "recipe": chosen.config,
        "argument": cell["argument"],
        "value": cell["value"],
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "fit": stored_json(run, "summary.json"),
        "evaluation": without_curves(read_evaluation(run / "evaluation.json")),
    }
    write_json(cell["result"], content)
    tell(f"lebm: {cell['name']}: {cell['result']}")


def _print_table(cells: list[dict[str, Any]], done: list[dict[str, Any]]) -> None:
    """The first values of every cell, and the command for the page that has all of them."""
    from rich.console import Console
    from rich.table import Table

    from lebm.evaluation.record import read_evaluation
    from lebm.report.figures import key_figures, own_figure
    from lebm.report.gather import RunRecord

    records = {
        cell["name"]: RunRecord(cell["name"], evaluation=read_evaluation(cell["run"] / "evaluation.json"))
        for cell in done
    }
    measured = key_figures(records.values())[:4]
    table = Table("cell", *(name for _, name in measured))
    for cell in cells:
        record = records.get(cell["name"])
        found = [own_figure(record, *key) for key in measured] if record else []
        told = [f"{one['value']:.4g}" if one and one["value"] is not None else "-" for one in found]
        table.add_row(cell["name"], *(told if record else ["not done"]))
    Console(width=None if Console().is_terminal else 140).print(table)
    if done:
        runs = shlex.join(str(cell["run"]) for cell in done)
        tell(f"lebm: the runs side by side: lebm report {runs} --out sweep.html")


def _covers(evaluation: Path, suites: list[str]) -> bool:
    """Whether all suites asked for have been measured."""
    if not evaluation.is_file():
        return False
    from lebm.evaluation.record import read_evaluation

    measured = read_evaluation(evaluation)["suites"]
    return all(suite in measured for suite in (SUITE_NAMES if not suites or "all" in suites else suites))
