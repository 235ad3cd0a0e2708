"""``lebm study``: the trainings and evaluations of a plan, and their tables."""

from __future__ import annotations

from pathlib import Path

from lebm.cli.flags import VerbParser
from lebm.errors import UserError, tell
from lebm.study import Study


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
    parser.add_argument("--results", type=Path, help="file of results (default: named by the plan)")
    parser.add_argument("--only", help="comma-separated names of the cells to run (default: all)")
    parser.add_argument(
        "--data", type=Path, help="parent folder of the data folders in the plan (default: none)"
    )
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
    done = len(opened.stored())
    tell(f"lebm: {done} cells in {opened.results}; next: lebm study table {chosen.plan}")
    return 1 if failed else 0
