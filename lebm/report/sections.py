"""The parts of a report, each a piece of HTML of all runs side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from lebm.report.differences import recipe_differences
from lebm.report.direction import best_of, better
from lebm.report.gather import RunRecord
from lebm.report.headline import headlines, pictures
from lebm.report.pieces import (
    figure_cell,
    figures_of,
    grid,
    key_figures,
    number_cell,
    own_figure,
    picture,
    table,
)
from lebm.report.svg import Series, bars, lines
from lebm.run.folder import spent_minutes

__all__ = ["SECTIONS"]

Records = Sequence[RunRecord]
BEST = "<p>The best value is marked. Where intervals overlap, chance may explain the difference.</p>"


def summary(records: Records) -> str:
    """Method, cost and key figures, one row per run."""
    present = key_figures(records)
    head = ["run", "method", "steps", "epochs", "CPU min", "wall min", "seed", *(name for _, name in present)]
    columns = [[own_figure(record, suite, name) for record in records] for suite, name in present]
    marks = [best_of(name, _values(found)) for (_, name), found in zip(present, columns, strict=True)]
    rows = []
    for number, record in enumerate(records):
        fit = record.summary
        lengths = [(fit.get(name), ",") for name in ("steps", "epochs")]
        minutes = [(spent_minutes(fit, which), ".1f") for which in ("cpu", "wall")]
        cost = [
            number_cell(value, format(value, form) if isinstance(value, int | float) else None, missing="?")
            for value, form in (*lengths, *minutes)
        ]
        seed = number_cell(fit.get("seed"), missing="?")
        figures = [
            figure_cell(found[number], number in best) for found, best in zip(columns, marks, strict=True)
        ]
        rows.append([escape(record.name), escape(record.method), *cost, seed, *figures])
    lost = [
        f"{record.name}: {record.summary.get('status')}"
        for record in records
        if record.summary.get("status") not in (None, "finished")
    ]
    told = f'<p class="warn">Not finished: {escape("; ".join(lost))}.</p>' if lost else ""
    ways = {name: f"{way} is better" for _, name in present if (way := better(name))}
    return (
        table(head, rows, ways)
        + told
        + "<p>Small numbers are 95 % intervals and numbers of samples. Click a heading to sort.</p>"
        + (BEST if len(records) > 1 else "")
    )


def _values(figures: Sequence[dict[str, Any] | None]) -> list[float | None]:
    return [None if figure is None else figure["value"] for figure in figures]


def all_figures(records: Records) -> str:
    """Every figure of every run."""
    keys = list(dict.fromkeys(key for record in records for key in figures_of(record)))
    if not keys:
        return (
            "<p>No run has an evaluation.json or a test.json yet: <code>lebm evaluate RUN</code> and"
            " <code>lebm test RUN</code> write them.</p>"
        )
    found = [figures_of(record) for record in records]
    rows = []
    for key in keys:
        figures = [one.get(key) for one in found]
        best = best_of(key[1], _values(figures))
        cells = [figure_cell(figure, number in best) for number, figure in enumerate(figures)]
        rows.append([*map(escape, key), better(key[1]) or "", *cells])
    head = ["suite", "figure", "split", "better", *(record.name for record in records)]
    return table(head, rows) + (BEST if len(records) > 1 else "")


def learning_curves(records: Records) -> str:
    """One chart per logged name, all runs in it; those whose lines do not change are folded."""
    names = list(dict.fromkeys(name for record in records for name in record.curves))
    charts: dict[bool, list[str]] = {True: [], False: []}
    for name in names:
        drawn = [
            Series(record.name, record.curves[name], number)
            for number, record in enumerate(records)
            if name in record.curves
        ]
        moving = any(len({value for _, value in one.points if math.isfinite(value)}) > 1 for one in drawn)
        charts[moving].append(lines(name, drawn, "step"))
    if not names:
        return "<p>No run has a metrics.csv.</p>"
    folded, still = "", charts[False]
    if still:
        heading = f"<summary>Names whose values do not change: {len(still)}</summary>"
        folded = f"<details>{heading}{grid(still)}</details>"
    return grid(charts[True]) + folded


def score_curves(records: Records) -> str:
    """Histograms a run, ROC and precision-recall curves with all runs in one chart, for every split or set
    and score.
    """
    parts = []
    for suite, title in (("anomaly", "Held-out label"), ("ood", "Other data sets")):
        keys = list(dict.fromkeys(key for record in records for key in _suite(record, suite)))
        for key in keys:
            having = [
                (number, record, _suite(record, suite)[key])
                for number, record in enumerate(records)
                if key in _suite(record, suite)
            ]
            charts = []
            for _, record, part in having:
                bins, heading = part["histogram"], f"{record.name}: {key}"
                charts.append(bars(heading, bins["low"], bins["high"], bins["shares"], "score"))
            for kind, name, labels in (
                ("roc", "ROC", ("false positive rate", "true positive rate")),
                ("pr", "precision-recall", ("recall", "precision")),
            ):
                drawn = [Series(record.name, part[kind], number) for number, record, part in having]
                charts.append(lines(f"{name}: {key}", drawn, *labels, x=(0.0, 1.0), y=(0.0, 1.02)))
            opened = " open" if key.endswith("/anomaly_score") and suite == "anomaly" else ""
            parts.append(
                f"<details{opened}><summary>{title}: {escape(key)}</summary>{grid(charts)}</details>"
            )
    return "".join(parts) or "<p>No run has scores of anomalies or of other data sets.</p>"


def _suite(record: RunRecord, name: str) -> dict[str, Any]:
    return record.evaluation.get("suites", {}).get(name, {}).get("curves", {})


def scored_rows(records: Records) -> str:
    """The rows with the highest scores of every run, and the pictures of both ends."""
    parts = []
    for record in records:
        found = record.scored
        if found is None:
            continue
        head = [name for name in (found.top[0] if found.top else {}) if name]
        rows = [
            [
                number_cell(float(row[name])) if name == found.score else escape(str(row[name] or ""))
                for name in head
            ]
            for row in found.top
        ]
        parts.append(
            f"<h3>{escape(record.name)}</h3><p>{len(rows)} of {found.count:,} rows of"
            f" <code>{escape(found.file)}</code>, highest {escape(found.score)} first.</p>"
            + table(head, rows)
            + grid([picture(record.name, what, url) for what, url in found.pictures.items()])
        )
    return (
        "".join(parts)
        or "<p>No run has scores of rows: <code>lebm score RUN --top 25</code> writes them.</p>"
    )


def chains(records: Records) -> str:
    """Log-densities of long chains, and what is wrong with them in words."""
    charts, told = [], []
    for record in records:
        for name, curve in _suite(record, "chains").items():
            traces = [
                Series(
                    f"chain {number + 1}",
                    [(step * curve["thin"], value) for step, value in enumerate(values) if value is not None],
                    number,
                )
                for number, values in enumerate(curve["log_density"])
            ]
            x_label = f"transition (training runs {curve['short_run']})"
            charts.append(lines(f"{record.name}: {name}, log-density", traces, x_label))
        found = record.evaluation.get("suites", {}).get("chains", {}).get("protocol", {}).get("findings", {})
        told += [
            f"<li><b>{escape(record.name)}</b>, {escape(name)}: {escape(text)}</li>"
            for name, texts in found.items()
            for text in texts
        ]
    if not charts and not told:
        return "<p>No run has chain diagnostics.</p>"
    return f"<ul>{''.join(told)}</ul>{grid(charts)}"


def protocols(records: Records) -> str:
    """How the figures were obtained."""
    parts = []
    for record in records:
        content = record.evaluation
        if not content:
            continue
        kept = {name: content[name] for name in ("checkpoint", "checkpoint_sha256", "weights", "seed")}
        suites = content["suites"].items()
        kept["suites"] = {
            name: {key: suite[key] for key in suite if key not in ("figures", "curves")}
            for name, suite in suites
        }
        parts.append(
            f"<details><summary>{escape(record.name)}</summary>"
            f"<pre>{escape(json.dumps(kept, indent=1))}</pre></details>"
        )
    return "".join(parts) or "<p>No run has an evaluation.json.</p>"


SECTIONS: dict[str, tuple[str, Callable[[Records], str]]] = {
    "runs": ("Runs", headlines),
    "summary": ("Summary", summary),
    "curves": ("Learning curves", learning_curves),
    "pictures": ("Other pictures", pictures),
    "scores": ("Scores", score_curves),
    "scored": ("Most anomalous rows", scored_rows),
    "chains": ("Chains", chains),
    "figures": ("All figures", all_figures),
    "recipes": ("Differences of the recipes", recipe_differences),
    "protocols": ("How it was measured", protocols),
}
"""Name in the address of the page, title, and the function that writes it, in order."""
