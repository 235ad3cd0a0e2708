"""Pieces of HTML that the sections of a report are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from lebm.evaluation.record import beside
from lebm.report.gather import RunRecord

__all__ = [
    "TEST_PASS",
    "figure_cell",
    "figures_of",
    "grid",
    "key_figures",
    "number_cell",
    "own_figure",
    "picture",
    "table",
]

TEST_PASS = "test pass"  # the suite of what test.json holds
KEY_FIGURES = {
    "image": ("reconstruction_mse", "fid", "frechet_distance/"),
    "anomaly": ("auroc/anomaly_score", "auprc/anomaly_score"),
    "likelihood": ("log_likelihood/ais",),
    "text": ("perplexity", "reverse_perplexity"),
    TEST_PASS: ("auroc", "reconstruction_mse", "fid", "frechet_distance/", "perplexity", "nll", "auprc"),
}
"""By suite; a name that ends with a stroke stands for all that begin with it, each with a column of its own.
"""

_NO_INTERVAL: dict[str, Any] = {"low": None, "high": None, "n": None, "details": {}}


def table(head: Sequence[str], rows: Iterable[Sequence[str]], notes: Mapping[str, str] | None = None) -> str:
    """A table that its headings sort; on a narrow screen every row is a list with the headings in it.

    Args:
        head: the headings.
        rows: cells as HTML, with or without their ``<td ...>``.
        notes: words below a heading, by heading.
    """
    top = "".join(
        f'<th scope="col"><button type="button">{escape(name)}</button>'
        + (f"<small>{escape(notes[name])}</small>" if notes and name in notes else "")
        + "</th>"
        for name in head
    )
    body = "".join(
        "<tr>" + "".join(_labelled(cell, name) for cell, name in zip(row, head, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _labelled(cell: str, name: str) -> str:
    label = f'<td data-label="{escape(name, quote=True)}"'
    return label + (cell[len("<td") :] if cell.startswith("<td") else f">{cell}</td>")


def number_cell(value: Any, text: str | None = None, note: str = "", missing: str = "not run") -> str:
    """A cell that sorts by its number; the text ``missing`` if the value is not a number."""
    if not isinstance(value, int | float):
        return f'<td class="none">{missing}</td>'
    small = f"<small>{escape(note)}</small>" if note else ""
    return f'<td class="number" data-value="{value!r}">{escape(text or f"{value:.4g}")}{small}</td>'


def figures_of(record: RunRecord) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Every figure by suite, name and split; the values of ``test.json`` are the suite ``test pass``."""
    suites = record.evaluation.get("suites", {})
    figures = {
        (suite, figure["name"], figure["split"]): figure
        for suite, part in suites.items()
        for figure in part["figures"]
    }
    for logged, value in record.test.get("metrics", {}).items():
        name = str(logged).removeprefix("test/")
        figures[TEST_PASS, name, "test"] = {"name": name, "split": "test", "value": value, **_NO_INTERVAL}
    return figures


def key_figures(records: Iterable[RunRecord]) -> list[tuple[str, str]]:
    """Suites and names that any run has, in the order of ``KEY_FIGURES``.

    A value of a test pass is left out if a suite of any run has a value of that kind.
    """
    having = list(dict.fromkeys(key[:2] for record in records for key in figures_of(record)))
    ordered = [
        (suite, name)
        for suite, keys in KEY_FIGURES.items()
        for key in keys
        for of, name in having
        if of == suite and (name == key or (key.endswith("/") and name.startswith(key)))
    ]
    measured = {name.partition("/")[0] for suite, name in ordered if suite != TEST_PASS}
    return [key for key in ordered if key[0] != TEST_PASS or key[1].partition("/")[0] not in measured]


def own_figure(record: RunRecord, suite: str, name: str) -> dict[str, Any] | None:
    """A figure of a run, that of its own anomaly split if a suite has measured several."""
    found = [figure for key, figure in figures_of(record).items() if key[:2] == (suite, name)]
    part = record.evaluation.get("suites", {}).get(suite, {})
    split = (part.get("origin", {}).get("data") or {}).get("anomaly_split")
    own = [figure for figure in found if figure["split"] == split] or found
    return own[0] if own else None


def figure_cell(figure: dict[str, Any] | None, best: bool = False) -> str:
    """A cell of a measured number, with its interval and the number of samples; ``not run`` for ``None``.

    Args:
        figure: the figure as plain values.
        best: whether it is the best of several.
    """
    if figure is None:
        return number_cell(None)
    if figure["value"] is None:
        return "<td>not finite</td>"
    ends = "" if figure["low"] is None else f"{figure['low']:.4g} to {figure['high']:.4g}"
    samples = "" if figure["n"] is None else f"n {figure['n']:,}"
    cell = number_cell(figure["value"], note="; ".join(filter(None, (ends, samples, beside(figure)))))
    return cell.replace("</td>", " <mark>best</mark></td>") if best else cell


def picture(run: str, kind: str, url: str) -> str:
    """A picture of a run, by its address inside the page; a click opens it large."""
    of = f"{kind.replace('_', ' ')} of {run}"
    return (
        f"<figure><figcaption>{escape(of)}</figcaption>"
        f'<button type="button" class="open" title="open large"><img src="{url}"'
        f' alt="{escape(of, quote=True)}"></button></figure>'
    )


def grid(parts: Sequence[str]) -> str:
    """Parts side by side; nothing if there are none."""
    return f'<div class="grid">{"".join(parts)}</div>' if parts else ""
