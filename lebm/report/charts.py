"""Line charts and histograms as SVG pictures with titles and legends as text."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Chart", "chart", "histogram"]

COLOURS = ("#0b62b0", "#c8432b", "#2f7d4f", "#7b4aa3", "#a86a00", "#00798c", "#8c3b6a", "#5b6470")
DASHES = ("solid", "dashed", "dotted")  # names in both matplotlib and CSS
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "text.parse_math": False, "font.size": 8}
POINTS = 300  # largest number per line
LARGEST = 1e300  # so the difference of two values is finite


class Chart(NamedTuple):
    """A chart, drawn when its address is requested: title, axis labels, and lines by name."""

    title: str
    labels: tuple[str, str]
    lines: dict[str, tuple[np.ndarray, str, str]]

    @property
    def moves(self) -> bool:
        """Return whether the values of any line change."""
        return any(len(set(values[np.isfinite(values[:, 1]), 1])) > 1 for values, *_ in self.lines.values())

    @property
    def url(self) -> str:
        """Return the picture as an address inside the page, the same for every drawing."""
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        with rc_context({**STYLE, "svg.hashsalt": self.title}):
            figure = Figure(figsize=(4.2, 2.7))
            axes = figure.add_axes((0.15, 0.16, 0.83, 0.76))
            for values, colour, dash in self.lines.values():
                axes.plot(*values.T, color=colour, linestyle=dash, linewidth=1.3)
            axes.set(xlabel=self.labels[0], ylabel=self.labels[1])
            axes.grid(color="#e6eaed", linewidth=0.6)
            axes.locator_params(nbins=5)
            axes.ticklabel_format(scilimits=(-3, 5))
            axes.spines[["top", "right"]].set_visible(False)
            written = io.BytesIO()
            figure.savefig(written, format="svg", metadata={"Date": None})
        return "data:image/svg+xml;base64," + base64.b64encode(written.getvalue()).decode()


def chart(title: str, labels: tuple[str, str], series: Mapping[str, Any]) -> Chart:
    """Return a line chart of points by name; the position of a name sets the colour.

    Values that are not finite, or beyond 1e300, break a line.
    """
    lines = {}
    for number, (name, points) in enumerate(series.items()):
        if points is not None:
            values = np.asarray(points, dtype=float).reshape(-1, 2)
            if len(values) > POINTS:
                values = values[np.linspace(0, len(values) - 1, POINTS).round().astype(int)]
            values = np.where(np.abs(values) < LARGEST, values, np.nan)
            turn, place = divmod(number, len(COLOURS))
            lines[name] = values, COLOURS[place], DASHES[(turn + place) % len(DASHES)]
    return Chart(title, labels, lines)


def histogram(title: str, low: float, high: float, shares: Mapping[str, Sequence[float]]) -> Chart:
    """Return histograms of scores over shared bins, as outlines."""
    outlines = {}
    for name, values in shares.items():
        edges = np.repeat(np.linspace(low, high, len(values) + 1), 2)
        outlines[name] = np.column_stack([edges, [0, *np.repeat(values, 2), 0]])
    return chart(title, ("score", "share"), outlines)
