"""Where the scripts that write results put them: `results/NAME.json` and one section of docs/results.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def keep(name: str, figures: Any) -> None:
    """Write ``results/NAME.json``."""
    (ROOT / "results").mkdir(exist_ok=True)
    (ROOT / "results" / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")


def fill(name: str, section: str, file: str = "results.md") -> None:
    """Replace what stands between ``<!-- NAME -->`` and ``<!-- end -->`` in a page of docs/.

    Raises:
        SystemExit: if there is no such place.
    """
    page = ROOT / "docs" / file
    pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.S)
    text = page.read_text()
    if not pattern.search(text):
        raise SystemExit(f"{page}: no <!-- {name} --> to fill in")
    page.write_text(pattern.sub(lambda match: f"{match[1]}\n{section}\n\n{match[2]}", text))


def where(hardware: dict, versions: dict, date: str) -> str:
    """The machine, the versions and the day, for the line below a table."""
    return (
        f"{hardware['cpu']}, {hardware['threads']} thread(s), torch {versions['torch']}, lebm"
        f" {versions['lebm']}, {date}"
    )
