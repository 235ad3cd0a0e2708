"""Pieces of HTML that the sections of a report are made of."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lebm.evaluation.record import beside
from lebm.report.gather import RunRecord

__all__ = ["data_url", "figure_cell", "figures_of", "grid", "number_cell", "table"]

PICTURE_WIDTH = 1000  # pixels; larger pictures are drawn smaller


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that its headings sort. Cells are HTML, with or without their ``<td ...>``."""
    top = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in head)
    body = "".join(
        "<tr>" + "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def number_cell(value: Any, text: str | None = None, note: str = "", missing: str = "not run") -> str:
    """A cell that sorts by its number; the text ``missing`` if the value is not a number."""
    if not isinstance(value, int | float):
        return f'<td class="none">{missing}</td>'
    small = f"<small>{escape(note)}</small>" if note else ""
    return f'<td class="number" data-value="{value!r}">{escape(text or f"{value:.4g}")}{small}</td>'


def figures_of(record: RunRecord) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Every figure by suite, name and split."""
    suites = record.evaluation.get("suites", {})
    return {
        (suite, figure["name"], figure["split"]): figure
        for suite, part in suites.items()
        for figure in part["figures"]
    }


def figure_cell(figure: dict[str, Any] | None) -> str:
    """A cell of a measured number, with its interval and the number of samples; ``not run`` for ``None``."""
    if figure is None:
        return number_cell(None)
    if figure["value"] is None:
        return "<td>not finite</td>"
    ends = "" if figure["low"] is None else f"{figure['low']:.4g} to {figure['high']:.4g}"
    return number_cell(
        figure["value"], note="; ".join(filter(None, (ends, f"n {figure['n']:,}", beside(figure))))
    )


def data_url(file: Path) -> str:
    """A picture inside the page: the file itself, or a palette PNG of at most 1000 pixels per row if that is
    smaller or the file is wider.
    """
    from PIL import Image

    content = file.read_bytes()
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        if image.width > PICTURE_WIDTH or len(content) > 400_000:
            small = image.convert("RGB")
            small.thumbnail((PICTURE_WIDTH, 4 * PICTURE_WIDTH))
            buffer = io.BytesIO()
            small.quantize(128).save(buffer, "PNG", optimize=True)
            content = (
                min(content, buffer.getvalue(), key=len)
                if image.width <= PICTURE_WIDTH
                else buffer.getvalue()
            )
    return "data:image/png;base64," + base64.b64encode(content).decode()


def grid(parts: Sequence[str]) -> str:
    """Parts side by side; nothing if there are none."""
    return f'<div class="grid">{"".join(parts)}</div>' if parts else ""
