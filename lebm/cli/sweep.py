"""``lebm sweep``: a recipe trained and evaluated for every combination of values; resumable."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from itertools import pairwise, product
from pathlib import Path

from lebm.cli.flags import VerbParser
from lebm.cli.validate_recipe import built
from lebm.config.recipes import run_name
from lebm.config.request import check_flagged_data, read_request
from lebm.errors import UserError, printable, tell
from lebm.evaluation.settings import SUITE_NAMES
from lebm.run.folder import stored_json

SHORT = {"held_out_label": "data.init_args.held_out_label", "seed": "seed_everything"}


def sweep(argv: list[str]) -> int:
    """``lebm sweep -c RECIPE --over held_out_label 1,4,5,7,9``; words it does not know go to ``lebm fit``."""
    parser = VerbParser(
        "sweep",
        "Train and evaluate a recipe for every value of an argument, or every combination of"
        " values of several. A cell is a run folder; what is done is skipped and what was interrupted goes"
        " on. Further words go to lebm fit.",
    )
    over = "for example: held_out_label 1,4,5,7,9, or latent_dim 4,8; repeat it for a grid"
    places = ("ARGUMENT", "VALUES")
    parser.add_argument("-c", "--config", required=True, help="a path, or a name that lebm ls prints")
    parser.add_argument("--over", nargs=2, action="append", metavar=places, required=True, help=over)
    parser.add_argument("--runs", type=Path, help="folder of the run folders (default: runs/sweep-RECIPE)")
    suite = "suite of lebm evaluate, repeatable (default: all)"
    parser.add_argument("--suite", action="append", choices=SUITE_NAMES, help=suite)
    chosen, fit_words = parser.parse_known_args(argv)
    folder = chosen.runs or Path("runs") / f"sweep-{run_name(chosen.config)}"
    axes: dict[str, list[str]] = {}
    for argument, values in chosen.over:
        if not re.fullmatch(r"[\w.+-]+(,[\w.+-]+)*", values):
            raise UserError(f"--over {argument} {values!r}: give values with commas between, as in 1,4,5")
        axes.setdefault(SHORT.get(argument, argument), []).extend(values.split(","))
    cells: dict[Path, list[str]] = {}
    for combined in product(*axes.values()):
        pairs = list(zip(axes, combined, strict=True))
        name = "_".join(f"{argument.rpartition('.')[2]}-{value}" for argument, value in pairs)
        cells[folder / name] = [*fit_words, *(word for key, value in pairs for word in (f"--{key}", value))]
    # What every cell would be refused for, such as an unknown argument, is refused before the first one.
    request = read_request("validate-recipe", ["-c", chosen.config, *next(iter(cells.values()))])
    check_flagged_data(request)
    built(request)
    done = [run for run, words in cells.items() if _finish(run, chosen.config, words, chosen.suite)]
    _print_table(list(cells), done)
    return 0 if len(done) == len(cells) else 1


def _finish(run: Path, recipe: str, words: list[str], suites: list[str] | None) -> bool:
    """Do what is left of a cell; whether it is complete now."""
    fitted = stored_json(run, "summary.json").get("status") == "finished"
    measured = stored_json(run, "evaluation.json").get("suites", {}) if fitted else {}
    steps = [] if fitted else [["fit", "-c", recipe, *words, "--run_dir", str(run), "--resume"]]
    if not set(suites or SUITE_NAMES) <= set(measured):
        trusted = [word for pair in pairwise(words) if pair[0] == "--trust" for word in pair]
        named = [word for suite in suites or () for word in ("--suite", suite)]
        steps.append(["evaluate", str(run), *named, *trusted])
    for step in steps:
        tell(f"lebm: {run}: lebm {shlex.join(step)}")
        # A process of its own: a cell that crashes or runs out of memory does not take the others with it.
        code = subprocess.run([sys.executable, "-m", "lebm", *step], check=False).returncode
        if code in (130, 143, -2, -15):
            raise KeyboardInterrupt
        if code:
            line = f"lebm: {run}: not done, lebm {step[0]} ended with status {code}"
            print(printable(line), file=sys.stderr)
            return False
    return True


def _print_table(cells: list[Path], done: list[Path]) -> None:
    """The first values of every cell, and the command for the page that has all of them."""
    from rich.console import Console
    from rich.table import Table

    from lebm.evaluation.record import read_evaluation
    from lebm.report.figures import key_figures, own_figure
    from lebm.report.gather import RunRecord

    records = {run: RunRecord(run.name, evaluation=read_evaluation(run / "evaluation.json")) for run in done}
    measured = key_figures(records.values())[:4]
    table = Table("cell", *(name for _, name in measured))
    for run in cells:
        found = [own_figure(records[run], *key) for key in measured] if run in records else []
        shown = [f"{one['value']:.4g}" if one and one["value"] is not None else "-" for one in found]
        table.add_row(run.name, *(shown if run in records else ["not done"]))
    Console(width=None if Console().is_terminal else 140).print(table)
    if done:
        page = f"lebm report {shlex.join(map(str, done))} --out sweep.html"
        tell(f"lebm: the runs side by side: {page}")
