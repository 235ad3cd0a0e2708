"""Charts as inline SVG: lines, histograms and their axes, nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["COLOURS", "Series", "bars", "lines"]

COLOURS = ("#0b62b0", "#c8432b", "#2f7d4f", "#7b4aa3", "#a86a00", "#00798c", "#8c3b6a", "#5b6470")
DASHES = ("", "6 3", "2 2", "8 3 2 3")
WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 12, 34
POINTS = 300

Point = Sequence[float]


@dataclass(frozen=True)
class Series:
    """One line or histogram of a chart: its name, its points, and its number, which decides colour and
    dashes.
    """

    name: str
    points: Sequence[Point]
    number: int = 0

    @property
    def style(self) -> str:
        """Colour and dashes, so that lines differ in print too."""
        turn, colour = divmod(self.number, len(COLOURS))
        dash = DASHES[(turn or colour) % len(DASHES)]
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        return f'stroke="{COLOURS[colour]}"{dashes}'


@dataclass(frozen=True)
class _Frame:
    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (y - self.y[0]) / (self.y[1] - self.y[0]) * (HEIGHT - TOP - BOTTOM)
        return round(across, 1), round(down, 1)


def lines(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str = "",
    x: tuple[float, float] | None = None,
    y: tuple[float, float] | None = None,
) -> str:
    """A line chart. Values that are not finite, or beyond 1e300, break the line. Ranges are those of the data
    unless given.
    """
    kept = [Series(one.name, _thinned(one.points), one.number) for one in series]
    frame = _Frame(
        x or _range([p[0] for one in kept for p in one.points]),
        y or _range([p[1] for one in kept for p in one.points]),
    )
    drawn = []
    for one in kept:
        pieces: list[list[str]] = [[]]
        for across, up in one.points:
            if _drawable(across) and _drawable(up):
                pieces[-1].append("{},{}".format(*frame.place(across, up)))
            elif pieces[-1]:
                pieces.append([])
        for piece in filter(None, pieces):
            drawn.append(
                f'<polyline points="{" ".join(piece)}"'
                f" {one.style}><title>{escape(one.name)}</title></polyline>"
            )
    return _chart(title, frame, "".join(drawn), kept, x_label, y_label)


def bars(title: str, low: float, high: float, shares: dict[str, Sequence[float]], x_label: str) -> str:
    """Histograms over the same bins as stepped outlines, so that they can overlap."""
    series = []
    for number, (name, values) in enumerate(shares.items()):
        width = (high - low) / len(values)
        steps: list[Point] = [(low, 0.0)]
        for place, value in enumerate(values):
            steps += [(low + place * width, value), (low + (place + 1) * width, value)]
        series.append(Series(name, [*steps, (high, 0.0)], number))
    top = max((value for values in shares.values() for value in values), default=1.0) or 1.0
    return lines(title, series, x_label, "share", x=(low, high), y=(0.0, 1.08 * top))


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    if len(points) <= POINTS:
        return points
    step = (len(points) - 1) / (POINTS - 1)
    return [points[round(place * step)] for place in range(POINTS)]


def _drawable(value: float) -> bool:
    return abs(value) < 1e300  # of two such values the difference is finite too


def _range(values: Sequence[float]) -> tuple[float, float]:
    finite = [value for value in values if _drawable(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    margin = 0.04 * (high - low) or max(abs(low), 1.0) * 0.05
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """About four round numbers between the ends."""
    raw = (high - low) / 4
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _label(value: float) -> str:
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}"


def _chart(
    title: str, frame: _Frame, drawn: str, series: Sequence[Series], x_label: str, y_label: str
) -> str:
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">']
    for value in _ticks(*frame.y):
        _, down = frame.place(frame.x[0], value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down}" y2="{down}" class="rule"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{down + 3.5}" text-anchor="end">{_label(value)}</text>')
    for value in _ticks(*frame.x):
        across, _ = frame.place(value, frame.y[0])
        parts.append(
            f'<text x="{across}" y="{HEIGHT - BOTTOM + 13}" text-anchor="middle">{_label(value)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>')
    if y_label:
        height = (TOP + HEIGHT - BOTTOM) / 2
        parts.append(
            f'<text x="11" y="{height}" text-anchor="middle" transform="rotate(-90 11'
            f' {height})">{escape(y_label)}</text>'
        )
    parts.append(f"{drawn}</svg>")
    keys = "".join(
        '<span><svg viewBox="0 0 22 8" class="key"><line x1="0" x2="22" y1="4" y2="4" stroke-width="2.5"'
        f" {one.style}/></svg>{escape(one.name)}</span>"
        for one in series
    )
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>{''.join(parts)}<div"
        f' class="keys">{keys}</div></figure>'
    )
