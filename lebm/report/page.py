"""The report page: one HTML file that needs no other file and no network."""

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jinja2

from lebm._version import __version__
from lebm.errors import UserNotice
from lebm.evaluation.record import beside
from lebm.files import write_text
from lebm.report.charts import Chart, chart, histogram
from lebm.report.figures import best_of, better, directions, figures_of, head_figures, key_figures, own_figure
from lebm.report.gather import FILES, RunRecord, gather
from lebm.run.folder import spent_minutes

__all__ = ["html", "report"]

PAGE = jinja2.Template(
    Path(__file__).with_name("page.html").read_text(encoding="utf-8"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.ChainableUndefined,
)
Records = Sequence[RunRecord]


def report(folders: list[Path], target: Path) -> int:
    """Write the page of run folders and return its size in bytes.

    A damaged file is skipped, with a :class:`~lebm.errors.UserNotice` and a line on the page.

    Raises:
        UserError: if a folder is not a run folder.
    """
    records = gather(folders)
    for record in records:
        for attribute, file in FILES.items():  # keep a file only if the page can be written from it
            alone = RunRecord(record.name, **{attribute: getattr(record, attribute)})
            setattr(record, attribute, {})
            with record.without(record.folder / file):
                html([alone], drawn=False)
                setattr(record, attribute, getattr(alone, attribute))
        for line in record.damaged:
            warnings.warn(UserNotice(line), stacklevel=2)
    content = html(records)
    write_text(target, content)
    return len(content.encode())


def html(records: Records, drawn: bool = True) -> str:
    """Return the page of some runs, with or without its charts."""
    own, flat = directions(records), [dict(_flat(record.config)) for record in records]
    names = dict.fromkeys(name for settings in flat for name in settings)
    rows = {name: [settings.get(name, "absent") for settings in flat] for name in names}
    keys = dict.fromkeys(key for record in records for key in figures_of(record))
    return PAGE.render(
        version=__version__,
        records=records,
        drawn=drawn,
        **{"better": partial(better, own=own), "best_of": partial(best_of, own=own)},
        **{"beside": beside, "head_figures": head_figures},
        **{"minutes": spent_minutes, "dumps": json.dumps},
        summary={key[1]: [own_figure(record, *key) for record in records] for key in key_figures(records)},
        figures={key: [figures_of(record).get(key) for record in records] for key in keys},
        curves=[
            chart(name, ("step", ""), {record.name: record.curves.get(name) for record in records})
            for name in dict.fromkeys(name for record in records for name in record.curves)
        ],
        scores=list(_score_curves(records)),
        traces=list(_traces(records)),
        differences=[[name, *row] for name, row in rows.items() if len(set(row)) > 1],
    )


def _curves(record: RunRecord, suite: str) -> dict[str, Any]:
    return record.evaluation.get("suites", {}).get(suite, {}).get("curves", {})


def _score_curves(records: Records) -> Iterator[tuple[str, str, list[Chart]]]:
    """Yield histograms per run, and ROC and precision-recall of all runs, per split and score."""
    labels = {"roc": ("false positive rate", "true positive rate"), "pr": ("recall", "precision")}
    for suite in ("anomaly", "ood"):
        found = {record.name: _curves(record, suite) for record in records}
        for key in dict.fromkeys(key for curves in found.values() for key in curves):
            having = {run: curves[key] for run, curves in found.items() if key in curves}
            charts = [histogram(f"{run}: {key}", **part["histogram"]) for run, part in having.items()]
            for title, kind in (("ROC", "roc"), ("precision-recall", "pr")):
                drawn = {run: having[run][kind] if run in having else None for run in found}
                charts.append(chart(f"{title}: {key}", labels[kind], drawn))
            yield suite, key, charts


def _traces(records: Records) -> Iterator[Chart]:
    """Yield charts of log-densities of long chains."""
    for record in records:
        for name, curve in _curves(record, "chains").items():
            chains = {
                f"chain {number}": [(step * curve["thin"], value) for step, value in enumerate(trace)]
                for number, trace in enumerate(curve["log_density"], 1)
            }
            labels = f"transition (training runs {curve['short_run']})", ""
            yield chart(f"{record.name}: {name}, log-density", labels, chains)


def _flat(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield settings by their place; list items such as callbacks are keyed by class, not by order."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        seen: Counter[str] = Counter()
        for item in value:
            name = str(item.get("class_path")).rpartition(".")[2]
            seen[name] += 1
            yield from _flat(item, f"{where}[{name} {seen[name]}]".replace(" 1]", "]"))
    elif isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _flat(item, f"{where}.{name}".lstrip("."))
    else:
        yield where, json.dumps(value, default=str)
