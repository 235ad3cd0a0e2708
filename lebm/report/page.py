"""The page: one HTML file that needs nothing else, not even a network."""

from __future__ import annotations

from html import escape
from pathlib import Path

from lebm._version import __version__
from lebm.files import replaced
from lebm.report.gather import RunRecord, gather
from lebm.report.sections import SECTIONS

__all__ = ["html", "report"]

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def html(records: list[RunRecord]) -> str:
    """The page of some runs."""
    title = " and ".join(record.name for record in records) if len(records) < 3 else f"{len(records)} runs"
    menu = "".join(f'<a href="#{name}">{escape(heading)}</a>' for name, (heading, _) in SECTIONS.items())
    parts = "".join(
        f'<section id="{name}"><h2>{escape(heading)}</h2>{write(records)}</section>'
        for name, (heading, write) in SECTIONS.items()
    )
    style, script = (
        (Path(__file__).parent / name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta'
        f' http-equiv="Content-Security-Policy" content="{POLICY}"><meta name="viewport"'
        ' content="width=device-width, initial-scale=1"><link rel="icon"'
        f' href="data:,"><title>{escape(title)}</title><style>{style}</style></head><body>'
        f"<h1>{escape(title)}</h1><nav>{menu}</nav>{parts}<p><small>Written"
        f" by lebm {escape(__version__)}.</small></p><script>{script}</script></body></html>\n"
    )


def report(folders: list[Path], target: Path) -> int:
    """Write the page of some run folders; returns its size in bytes.

    Raises:
        UserError: if a folder is no run folder, or a file in it is damaged.
    """
    content = html(gather(folders)).encode()
    with replaced(target) as unfinished:
        unfinished.write_bytes(content)
    return len(content)
