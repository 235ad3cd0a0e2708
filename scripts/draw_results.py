"""Draw docs/images/results_*.svg, the figures of docs/results, from results/*.jsonl alone.

    python scripts/draw_results.py

The key `figures` of studies/*.yaml has their plans. `series` are rows of label, figure of the cells, filter
as in tables, and style; `points` are positions on the x axis with further filters. Other keys: `x`, a figure
and a filter that give the position; `lines`, horizontal lines with a label and its place; `form`, a key of
FORMS; `over`, mean or median (default: mean); `scale`, a factor; `axes`, what matplotlib sets; `legend` or
`offset`, for labels in a legend or beside the points."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
import yaml
from matplotlib import pyplot as plt

from lebm.study import fitting, read_cells, value_of

ROOT = Path(__file__).resolve().parents[1]
FORMS: dict[str, dict[str, Any]] = {
    "bars": {"marker": "o", "ls": "none"},  # centre, lowest and highest value
    "band": {},  # a line through the centres, and the lowest and highest values around it
    "line": {"marker": "o"},
    "dots": {"marker": "o", "ls": "none"},  # every value
}


def values(study: str, figure: str, wanted: dict[str, Any]) -> list[float]:
    """Return a figure of the cells that match a filter."""
    cells = read_cells(ROOT / "results" / f"{wanted.get('study', study)}.jsonl")
    texts = {key.strip("$"): value for key, value in wanted.items()}
    chosen = fitting(cells, {key: value for key, value in wanted.items() if key != "study"})
    found = [value_of(cell, figure.format(**texts))[0] for cell in chosen]
    return [value for value in found if value is not None]


def draw(axes: Any, study: str, plan: dict[str, Any]) -> None:
    """Draw all series of a figure."""
    over, form, scale = getattr(statistics, plan.get("over", "mean")), plan["form"], plan.get("scale", 1)
    for label, figure, wanted, style in plan["series"]:
        style, places, own = FORMS[form] | style, [], []
        offset, shift = style.pop("offset", plan.get("offset")), style.pop("shift", 0)
        for place, further in plan["points"].items():
            chosen = wanted | further
            if "x" in plan:
                place = statistics.mean(values(study, plan["x"][0], chosen | plan["x"][1]))
            places.append(place + shift)
            own.append([scale * value for value in values(study, figure, chosen)])
        centres, low, high = map(over, own), list(map(min, own)), list(map(max, own))
        if form == "dots":
            places, centres = [place for place in places for _ in own[0]], own[0]
        if form == "bars":
            axes.vlines(places, low, high, color=style["color"], lw=1.5)
        elif form == "band":
            axes.fill_between(places, low, high, color=style["color"], alpha=0.15)
        axes.plot(places, list(centres), label=label, **style)
        if offset:
            annotate(axes, label, (places[0], over(own[0])), offset)
    for label, y, place in plan.get("lines", ()):
        y = y if isinstance(y, int | float) else values(study, *y)[0]
        axes.axhline(y, color="0.5", ls=":")
        annotate(axes, label, (place, y), (0, 2))
    axes.set(**plan["axes"])
    axes.minorticks_off()
    if "legend" in plan:
        axes.legend(fontsize=8, **plan["legend"])


def annotate(axes: Any, label: str, place: tuple[float, float], offset: tuple[float, float]) -> None:
    axes.annotate(label, place, xytext=offset, textcoords="offset points", fontsize=8)


def main() -> None:
    mpl.rcParams |= {"svg.hashsalt": "lebm", "svg.fonttype": "none", "axes.spines.top": False}
    mpl.rcParams |= {"axes.spines.right": False, "figure.dpi": 100, "legend.frameon": False}
    for path in sorted((ROOT / "studies").glob("*.yaml")):
        for name, plan in yaml.safe_load(path.read_text()).get("figures", {}).items():
            figure, axes = plt.subplots(figsize=plan.get("size", (6.0, 3.2)), layout="constrained")
            draw(axes, path.stem, plan)
            figure.savefig(ROOT / "docs" / "images" / f"results_{name}.svg", metadata={"Date": None})
            plt.close(figure)


if __name__ == "__main__":
    main()
