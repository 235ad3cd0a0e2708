"""What a reader sees first of a run, a picture, two values and the cost; and its other pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

from lebm.report.direction import better
from lebm.report.gather import RunRecord
from lebm.report.pieces import grid, key_figures, own_figure, picture
from lebm.run.folder import spent_minutes

__all__ = ["headlines", "pictures"]

SENTENCES = 5  # shown at once


def headlines(records: Sequence[RunRecord]) -> str:
    """Every run with a picture or sentences, two of its values, and what it cost."""
    return grid([_headline(record) for record in records])


def _headline(record: RunRecord) -> str:
    kind = _first_picture(record)
    shown = picture(record.name, kind, record.pictures[kind]) if kind else _sentences(record)
    values = (
        "".join(
            f'<div class="value"><b>{_number(figure)}</b> {escape(name)}'
            + (f"<small>{way} is better</small>" if (way := better(name)) else "")
            + "</div>"
            for name, figure in _two_values(record)
        )
        or "<p>No values yet: <code>lebm test RUN</code> or <code>lebm evaluate RUN</code> measures them.</p>"
    )
    return (
        f'<article><h3>{escape(record.name)}</h3><p class="method">{escape(record.method or "?")}</p>{shown}'
        f'{values}<p class="cost">{escape(_cost(record))}</p></article>'
    )


def _first_picture(record: RunRecord) -> str | None:
    return "samples" if "samples" in record.pictures else next(iter(record.pictures), None)


def _sentences(record: RunRecord) -> str:
    if not record.sentences:
        return "<p>No pictures and no sentences.</p>"
    first, rest = (
        "".join(f"<li>{escape(sentence)}</li>" for sentence in part)
        for part in (record.sentences[:SENTENCES], record.sentences[SENTENCES:])
    )
    more = f"<details><summary>more sentences</summary><ul>{rest}</ul></details>" if rest else ""
    return f'<ul class="sentences">{first}</ul>{more}'


def _two_values(record: RunRecord) -> list[tuple[str, dict[str, Any]]]:
    """The first key value of each suite before the second of any."""
    seen: Counter[str] = Counter()
    ranked = []
    for suite, name in key_figures([record]):
        ranked.append((seen[suite], suite, name))
        seen[suite] += 1
    ranked.sort(key=lambda item: item[0])
    found = [(name, own_figure(record, suite, name)) for _, suite, name in ranked[:2]]
    return [(name, figure) for name, figure in found if figure is not None]


def _number(figure: dict[str, Any]) -> str:
    return "not finite" if figure["value"] is None else f"{figure['value']:.4g}"


def _cost(record: RunRecord) -> str:
    fit = record.summary
    spent = {"CPU time": spent_minutes(fit, "cpu"), "wall time": spent_minutes(fit, "wall")}
    parts = [f"{minutes:.1f} min of {what}" for what, minutes in spent.items() if minutes is not None]
    for name in ("steps", "epochs"):
        if number := fit.get(name):
            parts.append(f"{number:,} {name if number > 1 else name[:-1]}")
    status = fit.get("status")
    if status not in (None, "finished"):
        parts.insert(0, str(status))
    return ", ".join(parts) or "cost not known"


def pictures(records: Sequence[RunRecord]) -> str:
    """Reconstructions, hierarchical grids, latent projections and others, those of one kind side by side.

    The picture at the head of a run is not repeated.
    """
    kinds = list(dict.fromkeys(kind for record in records for kind in record.pictures))
    parts = []
    for kind in kinds:
        shown = [
            picture(record.name, kind, record.pictures[kind])
            for record in records
            if kind in record.pictures and kind != _first_picture(record)
        ]
        if shown:
            parts.append(f"<h3>{escape(kind.replace('_', ' '))}</h3>{grid(shown)}")
    return "".join(parts) or "<p>No run has other pictures than the first.</p>"
