"""``lebm study``: the runs of a plan, and their tables; ``lebm sweep``: a study whose axes are flags."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

from lebm.cli.common import VerbParser
from lebm.cli.recipes import built
from lebm.config.recipes import run_name
from lebm.config.request import check_flagged_data, read_request
from lebm.errors import UserError, tell
from lebm.evaluation.settings import SUITE_NAMES
from lebm.run.folder import stored_json
from lebm.study import FLAGS, Study, attempted, command, fit_words, grid, product, read_cells, trained


def study(argv: list[str]) -> int:
    """Run ``lebm study run PLAN FOLDER`` or ``lebm study table PLAN [TITLE]``."""
    parser = VerbParser(
        "study",
        "Train and measure the cells of a plan (run), or print the tables of its results in Markdown (table)."
        " Finished cells are skipped, and interrupted ones are resumed. A plan is a program, so run only your"
        " own. docs/evaluation.md describes plans.",
    )
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("plan", type=Path, help="YAML file of the plan")
    rest = "parent folder of the runs (run), or name of a table (table; default: all)"
    parser.add_argument("target", nargs="?", help=rest)
    parser.flag("--results", "file of results (default: named by the plan)", type=Path)
    parser.flag("--only", "comma-separated names of the cells to run (default: all)")
    parser.flag("--data", "parent folder of the data folders in the plan (default: none)", type=Path)
    chosen = parser.parse_args(argv)
    if not chosen.plan.is_file():
        raise UserError(f"{chosen.plan}: no such file; name the YAML file of a plan")
    opened = Study(chosen.plan, chosen.results)
    if chosen.action == "table":
        titles = [chosen.target] if chosen.target else list(opened.plan.get("tables", {}))
        print("\n\n".join(opened.table(title) for title in titles))
        return 0
    if chosen.target is None:
        raise UserError(f"lebm study run {chosen.plan}: name a folder for the runs, such as runs/study")
    only = chosen.only.split(",") if chosen.only else None
    failed = opened.run(Path(chosen.target), only, chosen.data)
    cells = len(read_cells(opened.results))
    tell(f"lebm: {cells} cells in {opened.results}; next: lebm study table {chosen.plan}")
    return 1 if failed else 0


def sweep(argv: list[str]) -> int:
    """Run ``lebm sweep -c RECIPE --over held_out_label 1,4,5``; words it does not know go to ``lebm fit``."""
    parser = VerbParser(
        "sweep",
        "Train and evaluate a recipe for every value of an argument, or for every combination of values of"
        " several arguments, each in a run folder. Finished runs are skipped, and interrupted ones are"
        " resumed. Other flags are passed to lebm fit.",
    )
    over = "argument and its values, such as held_out_label 1,4,5 or latent_dim 4,8; repeatable for a grid"
    parser.add_argument("-c", "--config", required=True, help="recipe: a path, or a name that lebm ls prints")
    parser.flag("--over", over, nargs=2, action="append", metavar=("ARGUMENT", "VALUES"), required=True)
    parser.flag("--runs", "parent folder of the runs (default: runs/sweep-RECIPE)", type=Path)
    suite = "suite that lebm evaluate measures, repeatable (default: all)"
    parser.flag("--suite", suite, action="append", choices=SUITE_NAMES)
    chosen, more = parser.parse_known_args(argv)
    folder = chosen.runs or Path("runs") / f"sweep-{run_name(chosen.config)}"
    axes: dict[str, list[str]] = {}
    for argument, values in chosen.over:
        if not re.fullmatch(r"[\w.+-]+(,[\w.+-]+)*", values):
            raise UserError(f"--over {argument} {values!r}: separate the values by commas, as in 1,4,5")
        axes.setdefault(FLAGS.get(argument, argument), []).extend(values.split(","))
    plan, cells = {"recipe": shlex.join([chosen.config, *more])}, {}
    for settings in product(axes):
        name = "_".join(f"{key.rpartition('.')[2]}-{value}" for key, value in settings.items())
        cells[folder / name] = fit_words(plan, settings)
    # Errors that concern every cell, such as an unknown argument, are reported before the first one runs.
    request = read_request("validate-recipe", next(iter(cells.values())))
    check_flagged_data(request)
    built(request)
    done = [run for run, words in cells.items() if attempted(run, _finish, run, words, chosen.suite)]
    _print_table(list(cells), done)
    return 0 if len(done) == len(cells) else 1


def _finish(run: Path, words: list[str], suites: list[str] | None) -> None:
    """Train and evaluate a cell, except for what is done."""
    fresh = trained(run, words)
    measured = {} if fresh else stored_json(run, "evaluation.json").get("suites", {})
    if not set(suites or SUITE_NAMES) <= set(measured):
        trusted = [word for pair in pairwise(words) if pair[0] == "--trust" for word in pair]
        named = [word for suite in suites or () for word in ("--suite", suite)]
        command("-m", "lebm", "evaluate", str(run), *named, *trusted)


def _print_table(cells: list[Path], done: list[Path]) -> None:
    """Print the first values of every cell, and the command for the report."""
    from lebm.evaluation.record import read_evaluation
    from lebm.report.figures import key_figures, own_figure
    from lebm.report.gather import RunRecord

    records = {run: RunRecord(run.name, evaluation=read_evaluation(run / "evaluation.json")) for run in done}
    measured = key_figures(records.values())[:4]
    rows = []
    for run in cells:
        found = [own_figure(records[run], *key) if run in records else None for key in measured]
        shown = [f"{one['value']:.4g}" if one and one["value"] is not None else "-" for one in found]
        rows.append([run.name, "done" if run in records else "not done", *shown])
    for line in grid(["cell", "", *(name for _, name in measured)], rows).splitlines():
        tell(line)
    if done:
        page = f"lebm report {shlex.join(map(str, done))} --out sweep.html"
        tell(f"lebm: the runs side by side: {page}")
