"""How a series is marked: the same in a plot, in a strip, and in the table that is their key.

A strip shows ratios as marks in the row of a table, on one logarithmic axis that is drawn in its heading.
"""

from collections.abc import Iterable, Sequence
from math import ceil, floor, log, log10
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D

from reidexport.records.speed import Spread

NUM_SERIES = 8  # colors that the page has, the last one gray
SHAPES = "os^DvP*X<>dp"
DASHES = ("-", "--", "-.", ":")
_MOST_TICKS = 7
_DIGITS = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 2, 5), (1,))  # of each decade of an axis
_DASH_PX = {"--": "6 3", "-.": "8 2 2 2", ":": "2 2.5"}


class Mark(NamedTuple):
    """A color of the page, a shape as matplotlib names it, and a line; without a shape or a line, none is drawn."""

    color: int
    shape: str = ""
    line: str = ""
    is_hollow: bool = False


class Axis(NamedTuple):
    """A logarithmic axis; 1 is on it."""

    low: float
    high: float


def css_color(mark: Mark) -> str:
    """The page's name of a mark's color."""
    return f"var(--series-{mark.color % NUM_SERIES})"


def swatch(mark: Mark) -> Markup:
    """A mark as a small drawing, for the cell of a table."""
    width_px = 24 if mark.line else 12
    line = Markup('<path d="M-12 0H12" style="{}"/>').format(_stroke(mark)) if mark.line else ""
    return Markup(
        '<svg class="mark" aria-hidden="true" width="{0}" height="12" viewBox="{1} -6 {0} 12">{2}{3}</svg>'
    ).format(width_px, -width_px // 2, line, shape(mark))


def shape(mark: Mark) -> Markup:
    """A mark's shape around the origin, as a path."""
    if not mark.shape:
        return Markup("")
    style = MarkerStyle(mark.shape)
    # Curves become polygons whose sides are a fraction of a pixel: those of a shape of tenfold size.
    path = style.get_path().transformed(style.get_transform() + Affine2D().scale(80, -80))
    polygons = [np.asarray(polygon) / 10 for polygon in path.to_polygons()]
    outline = "".join(f"M{' '.join(f'{x:.1f},{y:.1f}' for x, y in polygon)}Z" for polygon in polygons)
    paint = f"fill: none; {_stroke(mark)}" if mark.is_hollow else f"fill: {css_color(mark)}"
    return Markup('<path d="{}" style="{}"/>').format(outline, paint)


def _stroke(mark: Mark) -> str:
    dashes = f"; stroke-dasharray: {_DASH_PX[mark.line]}" if mark.line in _DASH_PX else ""
    return f"stroke: {css_color(mark)}; stroke-width: 1.8{dashes}"


def axis_of(ratios: Iterable[Spread]) -> Axis:
    """The axis that holds ratios and 1, with some room on both sides."""
    values = [1.0, *(value for ratio in ratios for value in (ratio.lowest, ratio.highest))]
    return Axis(min(0.8, min(values) / 1.15), max(1.25, max(values) * 1.15))


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers on a logarithmic axis: of the series in ``_DIGITS`` the finest that gives at most seven."""
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    for digits in _DIGITS:
        ticks = [digit * 10.0**power for power in powers for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= _MOST_TICKS:
            break
    if len(ticks) < 2:
        return [float(tick) for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
    return ticks[:: ceil(len(ticks) / _MOST_TICKS)]


def strip(axis: Axis, ratios: Sequence[tuple[str, Mark, Spread]]) -> Markup:
    """The ratios of one row, below each other: the median as a mark, a line from the lowest to the highest.

    Behind them is a line at each figure of the axis, the one at 1 stronger.
    """
    grid = Markup("").join(
        Markup('<line class="{0}" x1="{1}" x2="{1}" y1="0" y2="100%"/>').format(
            "one" if tick == 1 else "tick", _place(axis, tick)
        )
        for tick in sorted({*log_ticks(*axis), 1.0})
    )
    drawn = Markup("").join(
        Markup(
            "<g><title>{name}: {median:.3g} × ({lowest:.3g} to {highest:.3g})</title>"
            '<line x1="{left}" x2="{right}" y1="{y:.1f}%" y2="{y:.1f}%" style="stroke: {color}"/>'
            '<svg x="{middle}" y="{y:.1f}%" overflow="visible">{shape}</svg></g>'
        ).format(
            name=name,
            **spread.model_dump(),
            left=_place(axis, spread.lowest),
            middle=_place(axis, spread.median),
            right=_place(axis, spread.highest),
            y=100 * i / (len(ratios) + 1),
            color=css_color(mark),
            shape=shape(mark),
        )
        for i, (name, mark, spread) in enumerate(ratios, 1)
    )
    return Markup('<svg class="strip" role="img" aria-label="ratios">{}{}</svg>').format(grid, drawn)


def axis_heading(axis: Axis) -> Markup:
    """The axis with its figures, for the heading of a column of strips."""
    figures = Markup("").join(
        Markup('<text x="{}" y="100%" dy="-6" text-anchor="middle">{:g}</text>').format(
            _place(axis, tick), tick
        )
        for tick in log_ticks(*axis)
    )
    return Markup('<svg class="strip" role="img" aria-label="axis of ratios">{}</svg>').format(figures)


def _place(axis: Axis, value: float) -> str:
    return f"{100 * log(value / axis.low) / log(axis.high / axis.low):.2f}%"
