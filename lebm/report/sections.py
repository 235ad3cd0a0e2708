"""The parts of a report, each a piece of HTML of all runs side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

from lebm.report.gather import RunRecord
from lebm.report.pieces import data_url, figure_cell, figures_of, grid, number_cell, table
from lebm.report.svg import Series, bars, lines
from lebm.run.folder import spent_minutes

__all__ = ["SECTIONS"]

Records = Sequence[RunRecord]
KEY_FIGURES = {
    "image": ("reconstruction_mse", "fid", "frechet_distance/"),
    "anomaly": ("auroc/anomaly_score", "auprc/anomaly_score"),
    "likelihood": ("log_likelihood/ais",),
}
"""By suite; a name that ends with a stroke stands for all that begin with it, each with a column of its own.
"""


def summary(records: Records) -> str:
    """Method, cost and key figures, one row per run."""
    present = _key_figures(records)
    head = ["run", "method", "steps", "epochs", "CPU min", "wall min", "seed", *(name for _, name in present)]
    rows = []
    for record in records:
        fit = record.summary
        figures = figures_of(record)
        minutes = [spent_minutes(fit, which) for which in ("cpu", "wall")]
        cells = [
            escape(record.name),
            escape(record.method),
            *(
                number_cell(fit.get(name), f"{fit.get(name):,}" if fit.get(name) else None, missing="?")
                for name in ("steps", "epochs")
            ),
        ]
        cells += [
            *(
                number_cell(value, f"{value:.1f}" if value is not None else None, missing="?")
                for value in minutes
            ),
            number_cell(fit.get("seed"), missing="?"),
        ]
        for suite, name in present:
            found = [figure for key, figure in figures.items() if key[:2] == (suite, name)]
            own = [figure for figure in found if figure["split"] == _own_split(record, suite)] or found
            cells.append(figure_cell(own[0] if own else None))
        rows.append(cells)
    lost = [
        f"{record.name}: {record.summary.get('status')}"
        for record in records
        if record.summary.get("status") not in (None, "finished")
    ]
    told = f'<p class="warn">Not finished: {escape("; ".join(lost))}.</p>' if lost else ""
    return (
        table(head, rows)
        + told
        + "<p>Small numbers are 95 % intervals and numbers of samples. Click a heading to sort.</p>"
    )


def _key_figures(records: Records) -> list[tuple[str, str]]:
    """Suites and names that any run has, in the order of ``KEY_FIGURES``."""
    having = list(dict.fromkeys(key[:2] for record in records for key in figures_of(record)))
    wanted = [(suite, name) for suite, names in KEY_FIGURES.items() for name in names]
    return [
        key
        for suite, name in wanted
        for key in having
        if key == (suite, name) or (key[0] == suite and _begins(key[1], name))
    ]


def _begins(name: str, start: str) -> bool:
    return start.endswith("/") and name.startswith(start)


def _own_split(record: RunRecord, suite: str) -> str | None:
    """The anomaly split of the run itself; a suite may have measured others as well."""
    return (record.evaluation["suites"][suite]["origin"].get("data") or {}).get("anomaly_split")


def all_figures(records: Records) -> str:
    """Every figure of every run."""
    keys = list(dict.fromkeys(key for record in records for key in figures_of(record)))
    if not keys:
        return "<p>No run has an evaluation.json yet: <code>lebm evaluate RUN</code> writes it.</p>"
    found = [figures_of(record) for record in records]
    rows = [
        [
            escape(suite),
            escape(name),
            escape(split),
            *(figure_cell(figures.get((suite, name, split))) for figures in found),
        ]
        for suite, name, split in keys
    ]
    return table(["suite", "figure", "split", *(record.name for record in records)], rows)


def learning_curves(records: Records) -> str:
    """One chart a logged name, all runs in it."""
    names = list(dict.fromkeys(name for record in records for name in record.curves))
    charts = [
        lines(
            name,
            [
                Series(record.name, record.curves[name], number)
                for number, record in enumerate(records)
                if name in record.curves
            ],
            "step",
        )
        for name in names
    ]
    return grid(charts) or "<p>No run has a metrics.csv.</p>"


def pictures(records: Records) -> str:
    """Samples, reconstructions, hierarchical grids and latent projections, those of one kind side by side."""
    kinds = list(dict.fromkeys(kind for record in records for kind in record.pictures))
    parts = []
    for kind in kinds:
        shown = [
            f"<figure><figcaption>{escape(record.name)}</figcaption><img"
            f' src="{data_url(record.pictures[kind])}" alt="{escape(kind)} of'
            f' {escape(record.name, quote=True)}"></figure>'
            for record in records
            if kind in record.pictures
        ]
        parts.append(f"<h3>{escape(kind.replace('_', ' '))}</h3>{grid(shown)}")
    return "".join(parts) or "<p>No run has pictures.</p>"


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
            charts = [
                bars(
                    f"{record.name}: {key}",
                    part["histogram"]["low"],
                    part["histogram"]["high"],
                    part["histogram"]["shares"],
                    "score",
                )
                for _, record, part in having
            ]
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
            charts.append(
                lines(
                    f"{record.name}: {name}, log-density",
                    traces,
                    f"transition (training runs {curve['short_run']})",
                )
            )
        found = record.evaluation.get("suites", {}).get("chains", {}).get("protocol", {}).get("findings", {})
        told += [
            f"<li><b>{escape(record.name)}</b>, {escape(name)}: {escape(text)}</li>"
            for name, texts in found.items()
            for text in texts
        ]
    return (
        f"<ul>{''.join(told)}</ul>{grid(charts)}"
        if charts or told
        else "<p>No run has chain diagnostics.</p>"
    )


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


def recipe_differences(records: Records) -> str:
    """Settings of the resolved recipes that are not the same in all runs."""
    flat = [dict(_flat(record.config)) for record in records]
    keys = list(dict.fromkeys(key for settings in flat for key in settings))
    absent = '<td class="none">absent</td>'
    rows = []
    for key in keys:
        values = [settings.get(key, absent) for settings in flat]
        if any(value != values[0] for value in values):
            rows.append([f"<code>{escape(key)}</code>", *values])
    if not rows:
        return (
            "<p>The resolved recipes are the same.</p>"
            if len(records) > 1
            else "<p>One run has nothing to differ from.</p>"
        )
    return table(["setting", *(record.name for record in records)], rows)


def _flat(value: Any, where: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _flat(item, f"{where}.{name}".lstrip("."))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for place, item in enumerate(value):
            yield from _flat(item, f"{where}[{place}]")
    else:
        yield where, f"<code>{escape(json.dumps(value))}</code>"


SECTIONS: dict[str, tuple[str, Callable[[Records], str]]] = {
    "summary": ("Summary", summary),
    "curves": ("Learning curves", learning_curves),
    "pictures": ("Samples, reconstructions, latents", pictures),
    "scores": ("Scores", score_curves),
    "chains": ("Chains", chains),
    "figures": ("All figures", all_figures),
    "recipes": ("Differences of the recipes", recipe_differences),
    "protocols": ("How it was measured", protocols),
}
"""Name in the address of the page, title, and the function that writes it, in order."""
