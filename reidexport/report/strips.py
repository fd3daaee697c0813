"""Ratios as marks in the rows of a table, on one logarithmic axis, drawn in its heading."""

from collections.abc import Iterable, Sequence
from math import ceil, floor, log, log10
from typing import NamedTuple

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from reidexport.records.speed import Spread
from reidexport.report.marks import Mark, css_color, shape

_MOST_TICKS = 7
_DIGITS = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 2, 5), (1,))  # of each decade


class Axis(NamedTuple):
    """A logarithmic axis; 1 is on it."""

    low: float
    high: float


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
    """The ratios of one row, below each other: the median as a mark, a line from the lowest to the highest."""
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
    return Markup('<svg class="strip" role="img" aria-label="ratios">{}{}</svg>').format(_grid(axis), drawn)


def axis_heading(axis: Axis) -> Markup:
    """The axis with its figures, for the heading of a column of strips."""
    figures = Markup("").join(
        Markup('<text x="{}" y="100%" dy="-6" text-anchor="middle">{:g}</text>').format(
            _place(axis, tick), tick
        )
        for tick in log_ticks(*axis)
    )
    return Markup('<svg class="strip" role="img" aria-label="axis of ratios">{}</svg>').format(figures)


def _grid(axis: Axis) -> Markup:
    """A line at each figure of the axis, the one at 1 stronger."""
    return Markup("").join(
        Markup('<line class="{0}" x1="{1}" x2="{1}" y1="0" y2="100%"/>').format(
            "one" if tick == 1 else "tick", _place(axis, tick)
        )
        for tick in sorted({*log_ticks(*axis), 1.0})
    )


def _place(axis: Axis, value: float) -> str:
    return f"{100 * log(value / axis.low) / log(axis.high / axis.low):.2f}%"
