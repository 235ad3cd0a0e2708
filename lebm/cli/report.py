"""``lebm report RUN...``: one HTML page that compares runs."""

from __future__ import annotations

from pathlib import Path

from lebm.cli.flags import VerbParser, free
from lebm.errors import UserError, tell


def report(argv: list[str]) -> int:
    """Run ``lebm report RUN... [--out FILE]``."""
    parser = VerbParser("report", "Write one self-contained HTML page that compares runs.")
    runs = "run folders; lebm evaluate RUN adds figures and curves"
    page = "output file (default: report.html)"
    parser.add_argument("run", type=Path, nargs="+", help=runs)
    parser.add_argument("--out", type=Path, default=Path("report.html"), help=page)
    parser.add_argument("--force", action="store_true", help="replace --out if it exists")
    chosen = parser.parse_args(argv)
    free(chosen.out, chosen.force)
    if missing := [run for run in chosen.run if not run.exists()]:
        raise UserError(f"{missing[0]}: no such run folder")
    from lebm.report.page import report as write

    size = write(chosen.run, chosen.out)
    tell(f"lebm: {len(chosen.run)} run(s) in {chosen.out}, {size / 2**20:.1f} MB")
    return 0
