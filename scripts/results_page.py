"""Tools of the scripts that write results: reading `results/`, tables, and the generated blocks of docs/.

A block stands between `<!-- NAME -->` and `<!-- end -->` on one page of docs/. A script that owns blocks has
`BLOCKS`, names to functions. Each function builds its block from the files in `results/` alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
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


def grid(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(map(str, line))} |" for line in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def machine(*records: dict) -> str:
    """Each machine with its versions, and the first and the last day, for the line below a table."""
    days: dict[str, list[str]] = {}
    for record in records:
        hardware, versions = record["hardware"], record["versions"]
        name = f"{hardware['cpu']}, {hardware['threads']} thread(s), torch {versions['torch']}, lebm"
        name += f" {versions['lebm']}"
        days.setdefault(name, []).append((record["started"] or "")[:10])
    spans = {name: dict.fromkeys(filter(None, (min(own), max(own)))) for name, own in days.items()}
    return "; ".join(", ".join(filter(None, [name, " to ".join(span)])) for name, span in spans.items())


def figures(evaluation: dict) -> dict[str, dict]:
    """The values of all suites of an evaluation, by name; the run's own test split comes first."""
    found = [entry for suite in evaluation["suites"].values() for entry in suite["figures"]]
    foreign = [entry for entry in found if entry.get("split") not in ("lebm", "test", None)]
    named: dict[str, dict] = {}
    for entry in [*(entry for entry in found if entry not in foreign), *foreign]:
        named.setdefault(entry["name"], entry)
    return named


def spread(values: Sequence[float | None], form: str, middle: Callable[[list[float]], float]) -> str:
    """The mean or median of the known values, with the lowest and the highest where they differ."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return ""
    centre, low, high = (form.format(value) for value in (middle(known), known[0], known[-1]))
    return centre if low == high else f"{centre} ({low} to {high})"
