"""Tools of the scripts that write results: the studies, and the generated blocks of docs/.

A block stands between `<!-- NAME -->` and `<!-- end -->` on one page of docs/. A script that owns blocks has
`BLOCKS`, names to functions. Each function builds its block from the files in `results/` alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lebm.study import Study

ROOT = Path(__file__).resolve().parents[1]
Blocks = Mapping[str, Callable[[], str]]


def half_width(values: Any) -> float:
    """Half the width of the 95 % interval of a mean of independent values."""
    return 1.96 * float(values.std()) / len(values) ** 0.5


def owners() -> dict[str, Path]:
    """Name of every generated block to its page."""
    pages = sorted((ROOT / "docs").rglob("*.md"))
    marker = re.compile(r"^<!-- (?!end )(\w+) -->$", re.M)
    return {name: page for page in pages for name in marker.findall(page.read_text())}


def publish(blocks: Blocks, check: bool = False) -> list[str]:
    """Write each block into its page, or only compare it; return the names of the blocks that differ.

    Raises:
        SystemExit: if no page has a place for a block.
    """
    pages, changed = owners(), []
    for name, build in blocks.items():
        if name not in pages:
            raise SystemExit(f"no page of docs/ has <!-- {name} -->")
        text = pages[name].read_text()
        start, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, after = text.split(start, 1)
        filled = f"{before}{start}\n{build()}\n\n{end}{after.split(end, 1)[1]}"
        if filled != text:
            changed.append(name)
            if not check:
                pages[name].write_text(filled)
    return changed


def study(name: str) -> Study:
    """The study of studies/NAME.yaml."""
    return Study(ROOT / "studies" / f"{name}.yaml")


def stored_cells(name: str) -> list[dict[str, Any]]:
    """The lines of results/NAME.jsonl."""
    return study(name).stored()


def study_blocks() -> dict[str, Callable[[], str]]:
    """The tables of every study that has some, by name."""
    found: dict[str, Callable[[], str]] = {}
    for path in sorted((ROOT / "studies").glob("*.yaml")):
        own = Study(path)
        found |= {title: partial(own.table, title) for title in own.plan.get("tables", {})}
    return found
