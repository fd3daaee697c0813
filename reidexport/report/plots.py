"""Plots as SVG that takes its colours from the page, so that they follow its theme."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, NullFormatter
from matplotlib.transforms import BboxBase

from reidexport.report.results import Spread

# Matplotlib wants numbers for colours: these stand for the page's own, and are replaced in what it draws.
_INK, _SOFT, _LINE = "#010101", "#010102", "#010103"
_LONGEST_OF_TWO = 28  # letters of a name, for a legend of two columns to be as wide as the plot
_NUM_SERIES, NUM_PEOPLE = 8, 20
_SERIES = [f"#0102{i:02x}" for i in range(_NUM_SERIES)]
_PEOPLE = [f"#0103{i:02x}" for i in range(NUM_PEOPLE)]
_PAGE_COLOURS = {
    _INK: "var(--ink)",
    _SOFT: "var(--soft)",
    _LINE: "var(--line)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(_SERIES)},
    # Neighbours in this order are far from each other on the colour circle.
    **{colour: f"hsl({i * 7 % NUM_PEOPLE * 18} var(--person))" for i, colour in enumerate(_PEOPLE)},
}
_MARKERS = "os^DvP*X<>dp"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _SOFT,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _SOFT,
    "ytick.labelcolor": _SOFT,
    "xtick.minor.size": 3.5,
    "xtick.minor.pad": 3.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
_WIDTH_INCHES, _HEIGHT_INCHES = 5.4, 3.6
_LABEL_OFFSETS_PT = [
    (x, y)
    for y in (0, 11, -11, 22, -22, 33, -33, 44, -44, 55, -55)
    for x in ((8, -8) if y == 0 else (8, -8, 0))
]


class Dot(NamedTuple):
    """One artifact in the plane of speed and accuracy."""

    label: str
    p50_ms: float
    mAP: float
    is_reference: bool


class Bar(NamedTuple):
    """One ratio with its spread."""

    label: str
    ratio: Spread


def accuracy_against_latency(name: str, dots: Sequence[Dot]) -> Markup:
    """MAP over the median latency of the network at batch 1; the reference is a hollow mark."""
    with rc_context(_STYLE):
        figure, axes = _figure()
        for i, dot in enumerate(dots):
            colour = _SERIES[i % _NUM_SERIES]
            axes.plot(
                dot.p50_ms,
                100 * dot.mAP,
                marker=_MARKERS[i % len(_MARKERS)],
                color=colour,
                markersize=9 if dot.is_reference else 7,
                markerfacecolor="none" if dot.is_reference else colour,
                markeredgewidth=1.8 if dot.is_reference else 0,
                linestyle="none",
            )
        axes.set(xlabel="median latency at batch 1, ms", ylabel="mAP, %", xscale="log")
        axes.margins(0.22, 0.25)
        _plain_log_ticks(axes, "x")
        _spread_labels(figure, axes, [(dot.p50_ms, 100 * dot.mAP, dot.label) for dot in dots])
        return _svg(figure, name, "mAP against latency of each artifact")


def throughput_against_batch(
    name: str,
    speeds: Mapping[str, Sequence[tuple[int, float]]],
    limits: Mapping[str, Sequence[tuple[int, float]]],
) -> Markup:
    """Images per second over the batch size, each series with the measured limit of the same name, dashed, unnamed.

    Args:
        name: of the plot, different from every other on the page.
        speeds: (batch size, images per second) of each series.
        limits: the same of what the machine can do at most; series without one are missing here.
    """
    with rc_context(_STYLE):
        figure, axes = _figure()
        for i, (series, points) in enumerate(speeds.items()):
            colour, marker = _SERIES[i % _NUM_SERIES], _MARKERS[i % len(_MARKERS)]
            axes.plot(*zip(*sorted(points), strict=True), color=colour, marker=marker, label=series)
            if series in limits:
                axes.plot(
                    *zip(*sorted(limits[series]), strict=True),
                    color=colour,
                    linestyle="--",
                    marker="_",
                )
        axes.set(xlabel="batch size", ylabel="images/s", xscale="log")
        axes.set_xticks(sorted({batch for points in speeds.values() for batch, _ in points}))
        axes.set_ylim(bottom=0)
        _plain_log_ticks(axes, "x")
        _legend_below(figure, axes)
        return _svg(figure, name, "throughput against batch size, with the measured limits")


def roc_curves(name: str, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Markup:
    """True positive rate over false positive rate, of pairs of images; the rates of each name."""
    with rc_context(_STYLE):
        figure, axes = _figure()
        lowest = 1.0
        styles = ("-", "--", "-.", ":")
        for i, (label, (fpr, tpr)) in enumerate(curves.items()):
            drawn = np.asarray(fpr) > 0  # zero has no place on a logarithmic axis
            if drawn.any():
                lowest = min(lowest, float(np.asarray(fpr)[drawn].min()))
            axes.plot(
                np.asarray(fpr)[drawn],
                100 * np.asarray(tpr)[drawn],
                color=_SERIES[i % _NUM_SERIES],
                linestyle=styles[i % len(styles)],
                label=label,
            )
        axes.set(
            xlabel="false positive rate",
            ylabel="true positive rate, %",
            xscale="log",
            xlim=(max(lowest, 1e-6), 1),
        )
        axes.set_ylim(top=101)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        _legend_below(figure, axes)
        return _svg(figure, name, "receiver operating characteristic of each artifact")


def ratio_bars(name: str, bars: Sequence[Bar], meaning: str = "times as fast as the peer") -> Markup:
    """Each peer's figure over ours: the median as a mark, from the lowest to the highest round as a line."""
    with rc_context(_STYLE):
        figure, axes = _figure(height=0.9 + 0.3 * len(bars))
        for i, bar in enumerate(bars):
            y = len(bars) - 1 - i
            colour = _SERIES[0] if bar.ratio.median >= 1 else _SERIES[1]
            axes.plot((bar.ratio.lowest, bar.ratio.highest), (y, y), color=colour, linewidth=2)
            axes.plot(
                bar.ratio.median, y, marker="o" if bar.ratio.median >= 1 else "D", color=colour, markersize=7
            )
        axes.axvline(1, color=_INK, linewidth=1)
        axes.set_yticks(range(len(bars)), [bar.label for bar in reversed(bars)], color=_INK, fontsize=9)
        axes.grid(visible=False, axis="y")
        axes.set(xlabel=meaning, xscale="log", ylim=(-0.7, len(bars) - 0.3))
        values = [value for bar in bars for value in (bar.ratio.lowest, bar.ratio.highest)]
        axes.set_xlim(min(0.8, min(values) / 1.15), max(1.25, max(values) * 1.15))
        _plain_log_ticks(axes, "x")
        return _svg(figure, name, "ratios to each peer, with their spread")


def projection(
    name: str,
    points: npt.NDArray[np.float64],
    pids: Sequence[int],
    camids: Sequence[int],
    shares: tuple[float, float],
) -> Markup:
    """Features in two dimensions: colour and number say who, the mark which camera.

    Args:
        name: of the plot, different from every other on the page.
        points: (N, 2) floats.
        pids: of the N points, of at most 20 people.
        camids: of the N points, from 0.
        shares: of the variance, along the two axes.
    """
    people, cameras = np.asarray(pids), np.asarray(camids)
    with rc_context(_STYLE):
        figure, axes = _figure(width=7.6, height=5.6)
        for colour, pid in zip(_PEOPLE, np.unique(people), strict=False):
            for camid in np.unique(cameras):
                chosen = points[(people == pid) & (cameras == camid)]
                marker = _MARKERS[camid % len(_MARKERS)]
                axes.plot(
                    chosen[:, 0],
                    chosen[:, 1],
                    marker,
                    color=colour,
                    markersize=5,
                    markeredgewidth=0,
                    alpha=0.8,
                )
        for pid in np.unique(people):
            centre = np.median(points[people == pid], axis=0)
            axes.annotate(
                str(pid), centre, ha="center", va="center", fontsize=9, fontweight="bold", color=_INK
            )
        for camid in np.unique(cameras):
            marker = _MARKERS[camid % len(_MARKERS)]
            axes.plot([], [], marker, color=_SOFT, markeredgewidth=0, label=f"camera {camid + 1}")
        axes.set(
            xlabel=f"first component, {shares[0]:.0%} of the variance",
            ylabel=f"second component, {shares[1]:.0%}",
        )
        axes.tick_params(labelbottom=False, labelleft=False, length=0)
        axes.set_aspect("equal", "datalim")
        _legend_below(figure, axes, columns=6)
        return _svg(figure, name, "features of some people in two dimensions")


def _figure(width: float = _WIDTH_INCHES, height: float = _HEIGHT_INCHES) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _legend_below(figure: Figure, axes: Axes, columns: int | None = None) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = columns or (2 if max(map(len, labels), default=0) <= _LONGEST_OF_TWO else 1)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _plain_log_ticks(axes: Axes, which: str) -> None:
    """Numbers instead of powers of ten: 1, 2, 5 of each decade, or the ticks that were chosen."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    if len(axis.get_majorticklocs()) and axis.get_scale() == "log":
        axis.set_major_formatter(plain)
        low, high = sorted(axis.get_view_interval())
        few = high / low < 20
        axis.set_minor_formatter(
            FuncFormatter(lambda value, _: f"{value:g}" if few and _leading_digit(value) in (2, 5) else "")
        )


def _leading_digit(value: float) -> int:
    return int(f"{value:e}"[0])


def _spread_labels(figure: Figure, axes: Axes, labels: Sequence[tuple[float, float, str]]) -> None:
    """Write a label beside each point, at the first place where it covers no other label and no point."""
    figure.draw_without_rendering()
    taken = [
        (x - 6, y - 6, x + 6, y + 6) for x, y in axes.transData.transform([(x, y) for x, y, _ in labels])
    ]
    frame = axes.get_window_extent()
    for x, y, text in labels:
        boxes = []
        for offset in _LABEL_OFFSETS_PT:
            label = _label_at(axes, x, y, text, offset)
            box = _edges(label.get_window_extent())
            inside = box[0] >= frame.x0 and box[2] <= figure.bbox.x1 and figure.bbox.y0 <= box[1]
            overlap = sum(_common_area(box, other) for other in taken) + (0 if inside else 1e6)
            boxes.append((overlap, offset, box))
            label.remove()
            if overlap == 0:
                break
        _, offset, best = min(boxes, key=lambda each: each[0])
        _label_at(axes, x, y, text, offset)
        taken.append(best)


def _edges(box: BboxBase) -> tuple[float, float, float, float]:
    return box.x0, box.y0, box.x1, box.y1


def _label_at(axes: Axes, x: float, y: float, text: str, offset: tuple[int, int]) -> Annotation:
    side = "left" if offset[0] > 0 else "right" if offset[0] < 0 else "center"
    lead = {"arrowstyle": "-", "color": _LINE, "shrinkA": 0, "shrinkB": 4} if abs(offset[1]) > 15 else None
    return axes.annotate(
        text, (x, y), offset, textcoords="offset points", ha=side, va="center", fontsize=9, arrowprops=lead
    )


def _common_area(one: Sequence[float], other: Sequence[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def _svg(figure: Figure, name: str, title: str) -> Markup:
    """The figure as an element of the page: themed, without metadata, its ids its own."""
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = re.sub(r".*?(<svg )", r"\1", buffer.getvalue(), count=1, flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'( xmlns(:xlink)?="[^"]*"| width="[^"]*pt"| height="[^"]*pt")', "", text)
    text = text.replace("xlink:href=", "href=")
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r'<style type="text/css">.*?</style>', "", text, flags=re.DOTALL)
    text = re.sub(r"#010[123][0-9a-f]{2}", lambda found: _PAGE_COLOURS.get(found[0], found[0]), text)
    width = figure.get_figwidth() * 96
    return Markup(  # noqa: S704 - matplotlib escapes what it writes
        text.replace("<svg ", f'<svg role="img" aria-label="{title}" style="max-width: {width:.0f}px" ', 1)
    )
