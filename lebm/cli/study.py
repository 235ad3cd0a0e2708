"""``lebm study``: the trainings and measurements of a plan, and their tables."""

from __future__ import annotations

from pathlib import Path

from lebm.cli.flags import VerbParser
from lebm.errors import UserError, tell
from lebm.study import Study


def study(argv: list[str]) -> int:
    """``lebm study run PLAN FOLDER`` and ``lebm study table PLAN [TITLE]``."""
    parser = VerbParser(
        "lebm study",
        description="Train and measure the cells of a plan, one line of results per cell, or print the tables"
        " of the results in Markdown. Finished cells are skipped and interrupted ones go on. A plan is a"
        " program: run only your own. docs/evaluation.md describes plans.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="run|table")
    run = verbs.add_parser("run", help="do the cells that have no line yet")
    table = verbs.add_parser("table", help="print one table, or all")
    for verb in (run, table):
        verb.add_argument("plan", type=Path, help="a YAML file")
        verb.add_argument("--results", type=Path, help="file of the results (default: named by the plan)")
    run.add_argument("folder", type=Path, help="folder of the run folders")
    run.add_argument("--only", help="names of cells, with commas between")
    run.add_argument("--data", type=Path, help="folder with the folders of data that the plan names")
    table.add_argument("title", nargs="?", help="name of a table (default: all)")
    chosen = parser.parse_args(argv)
    if not chosen.plan.is_file():
        raise UserError(f"{chosen.plan}: no such file; give the YAML file of a plan")
    opened = Study(chosen.plan, chosen.results)
    if chosen.verb == "table":
        titles = [chosen.title] if chosen.title else list(opened.plan.get("tables", {}))
        print("\n\n".join(opened.table(title) for title in titles))
        return 0
    only = chosen.only.split(",") if chosen.only else None
    failed = opened.run(chosen.folder, only, chosen.data)
    done = len(opened.stored())
    tell(f"lebm: {done} cells in {opened.results}; next: lebm study table {chosen.plan}")
    return 1 if failed else 0
