"""The page: one HTML file that needs nothing else, not even a network."""

from __future__ import annotations

import warnings
from html import escape
from pathlib import Path

from lebm._version import __version__
from lebm.errors import UserNotice
from lebm.files import replaced
from lebm.report.gather import FILES, RunRecord, gather
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
    damaged = [escape(line) for record in records for line in record.damaged]
    told = f'<p class="warn">{"<br>".join(damaged)}</p>' if damaged else ""
    style, script = (
        (Path(__file__).parent / name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta'
        f' http-equiv="Content-Security-Policy" content="{POLICY}"><meta name="viewport"'
        ' content="width=device-width, initial-scale=1"><link rel="icon"'
        f' href="data:,"><title>{escape(title)}</title><style>{style}</style></head><body>'
        f"<h1>{escape(title)}</h1><nav>{menu}</nav>{told}{parts}<p><small>Written"
        f" by lebm {escape(__version__)}.</small></p><script>{script}</script></body></html>\n"
    )


def report(folders: list[Path], target: Path) -> int:
    """Write the page of some run folders; returns its size in bytes.

    A damaged file of a run folder is left out, with a :class:`~lebm.errors.UserNotice` and a line on the
    page.

    Raises:
        UserError: if a folder is not a run folder.
    """
    records = gather(folders)
    for record in records:
        _leave_out_damaged(record)
        for line in record.damaged:
            warnings.warn(UserNotice(line), stacklevel=2)
    content = html(records).encode()
    with replaced(target) as unfinished:
        unfinished.write_bytes(content)
    return len(content)


def _leave_out_damaged(record: RunRecord) -> None:
    """Write the page from each file alone, and keep a file only if that works."""
    for attribute, file in FILES.items():
        alone = RunRecord(record.name, **{attribute: getattr(record, attribute)})
        setattr(record, attribute, getattr(RunRecord(record.name), attribute))
        with record.without(record.folder / file):
            html([alone])
            setattr(record, attribute, getattr(alone, attribute))
