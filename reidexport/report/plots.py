"""Plots as SVG that takes its colors from the page, so that they follow its theme; their labels cover nothing.

Each has a name that is different from every other on the page.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from math import cos, hypot, pi, sin
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator
from matplotlib.transforms import Bbox
from reidgallery.input import UNLABELED

from reidexport.records.accuracy import Roc
from reidexport.report.marks import NUM_SERIES, SHAPES, Mark, log_ticks

# Matplotlib wants numbers for colors: these stand for the page's own, and are replaced in what it draws.
_INK, _SOFT, _LINE = "#010101", "#010102", "#010103"
NUM_PEOPLE = 20
_SERIES = [f"#0102{i:02x}" for i in range(NUM_SERIES)]
_PEOPLE = [f"#0103{i:02x}" for i in range(NUM_PEOPLE)]
_PAGE_COLORS = {
    _INK: "var(--ink)",
    _SOFT: "var(--soft)",
    _LINE: "var(--line)",
    **{color: f"var(--series-{i})" for i, color in enumerate(_SERIES)},
    # Neighbors in this order are far from each other on the color circle.
    **{color: f"hsl({i * 7 % NUM_PEOPLE * 18} var(--person))" for i, color in enumerate(_PEOPLE)},
}
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
    "legend.frameon": False,
    "legend.fontsize": 9,
}
_WIDTH_INCHES, _HEIGHT_INCHES = 5.4, 3.9
_LEAST_SPAN_POINTS, _LEAST_SPAN_TIMES = 0.05, 1.25  # of axes of accuracy and of latency: less is noise
# Of labels, which are tried at these distances from their points.
_DISTANCES_PT = (10, 11, 13, 18, 24, 31, 39, 48, 58, 70, 85, 105, 130, 160, 200)
_NUM_DIRECTIONS = 16
_WITHOUT_LEADER_PT = 14  # a label so near needs no line to its point
_FONT_PT, _LINE_PT = 9, 11
_TEXT_STYLE: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": _FONT_PT, "fontweight": "bold"}


class Dot(NamedTuple):
    """One artifact in the plane of speed and accuracy."""

    label: str
    p50_ms: float
    mAP: float
    mark: Mark


@rc_context(_STYLE)
def accuracy_against_latency(name: str, dots: Sequence[Dot]) -> Markup:
    """MAP over the median latency of the network at batch 1, each dot with its label."""
    return _svg(draw_accuracy_against_latency(dots), name, "mAP against latency of each artifact")


def draw_accuracy_against_latency(dots: Sequence[Dot]) -> Figure:
    """The figure of :func:`accuracy_against_latency`."""
    figure, axes = _figure()
    for dot in dots:
        axes.plot(dot.p50_ms, 100 * dot.mAP, markersize=7, **_line_style(dot.mark))
    axes.set(xlabel="median latency at batch 1, ms", ylabel="mAP, %", xscale="log")
    axes.margins(0.12, 0.15)
    low, high = axes.get_ylim()
    middle, half = (low + high) / 2, max(high - low, _LEAST_SPAN_POINTS) / 2
    axes.set_ylim(middle - half, middle + half)
    low, high = axes.get_xlim()
    middle, half = (low * high) ** 0.5, max(high / low, _LEAST_SPAN_TIMES) ** 0.5
    axes.set_xlim(middle / half, middle * half)
    axes.ticklabel_format(axis="y", useOffset=False)
    _set_x_ticks(axes, log_ticks(*axes.get_xlim()))
    labels = [(dot.label, (dot.p50_ms, 100 * dot.mAP)) for dot in dots]
    _spread_labels(figure, axes, labels, mark_pt=10)
    return figure


@rc_context(_STYLE)
def throughput_against_batch(name: str, series: Sequence[tuple[Mark, Mapping[int, float]]]) -> Markup:
    """Images per second over the batch size."""
    figure, axes = _figure()
    for mark, images_per_s in series:
        axes.plot(*zip(*sorted(images_per_s.items()), strict=True), **_line_style(mark))
    batches = sorted({batch for _, images_per_s in series for batch in images_per_s})
    axes.set(xlabel="batch size", ylabel="images/s", xscale="log")
    axes.set_ylim(bottom=0)
    _set_x_ticks(axes, batches)
    return _svg(figure, name, "throughput against batch size, with the measured limits")


@rc_context(_STYLE)
def roc_curves(name: str, curves: Sequence[tuple[Mark, Roc]]) -> Markup:
    """True positive rate over false positive rate, of pairs of images; below it, less that of the first curve.

    Each has a false positive rate above 0; the first of several is broad, to be seen below.
    """
    is_one = len(curves) == 1
    figure = Figure(figsize=(_WIDTH_INCHES, 3.6 if is_one else 5.6), dpi=72, layout="constrained")
    heights = (3, 2)[: len(curves)]
    panels = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)
    upper, lower = panels[0, 0], panels[-1, 0]
    rates = [(mark, np.asarray(roc.fpr), 100 * np.asarray(roc.tpr)) for mark, roc in curves]
    # Zero has no place on a logarithmic axis.
    drawn = [(mark, fpr[fpr > 0], tpr[fpr > 0]) for mark, fpr, tpr in rates]
    _, first_fpr, first_tpr = drawn[0]
    for i, (mark, fpr, tpr) in enumerate(drawn):
        is_broad = i == 0 and not is_one
        style = _line_style(mark) | ({"linewidth": 6, "alpha": 0.35} if is_broad else {"linewidth": 1.5})
        upper.plot(fpr, tpr, **style)
        if not is_one:
            lower.plot(fpr, tpr - np.interp(np.log(fpr), np.log(first_fpr), first_tpr), **style)
    low = max(min(float(fpr.min()) for _, fpr, _ in drawn), 1e-6)
    high = max(float(fpr.max()) for _, fpr, _ in drawn)
    lower.set(ylabel="difference from the first,\npoints", xlabel="false positive rate")
    upper.set(ylabel="true positive rate, %", ylim=(0, 101), xscale="log")
    lower.set_xlim(low, max(1.05 * high, 10 * low))
    lower.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))
    lower.xaxis.set_minor_formatter(NullFormatter())
    figure.align_ylabels()
    return _svg(figure, name, "receiver operating characteristic of each artifact, and the differences")


@rc_context(_STYLE)
def projection(
    name: str,
    points: npt.NDArray[np.float64],
    pids: Sequence[int],
    camids: Sequence[int],
    shares: tuple[float, float],
) -> Markup:
    """Features in two dimensions: color and number say who, the mark which camera.

    ``points`` are (N, 2), of at most 20 people ``pids``, and ``camids`` from 0 or ``UNLABELED``; ``shares`` are of the
    variance, along the two axes.
    """
    people, cameras = np.asarray(pids), np.asarray(camids)
    figure, axes = _figure(width=6, height=5.4)
    for color, pid in zip(_PEOPLE, np.unique(people), strict=False):
        for camid in np.unique(cameras):
            chosen = points[(people == pid) & (cameras == camid)]
            marker = SHAPES[camid % len(SHAPES)]
            axes.plot(*chosen.T, marker, color=color, markersize=5, markeredgewidth=0, alpha=0.8)
    for camid in np.unique(cameras):
        marker = SHAPES[camid % len(SHAPES)]
        label = "no camera" if camid == UNLABELED else f"camera {camid + 1}"
        axes.plot([], [], marker, color=_SOFT, markeredgewidth=0, label=label)
    axes.set_xlabel(f"first component, {shares[0]:.0%} of the variance")
    axes.set_ylabel(f"second component, {shares[1]:.0%}")
    axes.tick_params(labelbottom=False, labelleft=False, length=0)
    axes.set_aspect("equal", "datalim")
    figure.legend(loc="outside lower center", ncols=3)
    centers = [(str(pid), tuple(np.median(points[people == pid], axis=0))) for pid in np.unique(people)]
    _spread_labels(figure, axes, centers, mark_pt=0)
    return _svg(figure, name, "features of some people in two dimensions")


def _figure(width: float = _WIDTH_INCHES, height: float = _HEIGHT_INCHES) -> tuple[Figure, Axes]:
    # Of 72 dots per inch, as in SVG: a pixel is a point.
    figure = Figure(figsize=(width, height), dpi=72, layout="constrained")
    return figure, figure.add_subplot()


def _line_style(mark: Mark) -> dict[str, Any]:
    """A mark as keyword arguments of ``Axes.plot``."""
    color = _SERIES[mark.color % NUM_SERIES]
    return {
        "color": color,
        "marker": mark.shape or "none",
        "linestyle": mark.line or "none",
        "markerfacecolor": "none" if mark.is_hollow else color,
        "markeredgewidth": 1.8 if mark.is_hollow else 0,
    }


def _set_x_ticks(axes: Axes, ticks: Sequence[float]) -> None:
    """Numbers instead of powers of ten along the horizontal axis."""
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _spread_labels(
    figure: Figure, axes: Axes, labels: Sequence[tuple[str, tuple[float, float]]], *, mark_pt: float
) -> None:
    """Write each label at the free place nearest to its point, with a line to a point that is far away.

    A label is a text and the point that it names. The figure has 72 dots per inch and everything else on it:
    nothing may move afterwards. No label covers a mark, of the size ``mark_pt``; at 0, labels may cover their points.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    points = axes.transData.transform([point for _, point in labels])
    taken = [_box(x, y, mark_pt, mark_pt) for x, y in points] if mark_pt else []
    frame = axes.get_window_extent()
    leader = {"arrowstyle": "-", "color": _SOFT, "linewidth": 0.8, "shrinkA": 5, "shrinkB": 4}
    for (text, point), (x, y) in zip(labels, points, strict=True):
        written = axes.annotate(text, point, (0, 0), textcoords="offset points", **_TEXT_STYLE)
        width_pt = written.get_window_extent().width + 2
        places = [(at, _box(x + at[0], y + at[1], width_pt, _LINE_PT)) for at in _offsets_pt()]
        free = (
            (at, box)
            for at, box in places
            if box.count_overlaps(taken) == 0 and frame.contains(*box.min) and frame.contains(*box.max)
        )
        at, box = next(free, places[-1])
        written.set_position(at)
        if hypot(*at) > _WITHOUT_LEADER_PT:
            axes.annotate("", point, at, textcoords="offset points", arrowprops=leader)
        taken.append(box)


def _box(x: float, y: float, width: float, height: float) -> Bbox:
    """The box around a center."""
    return Bbox.from_bounds(x - width / 2, y - height / 2, width, height)


def _offsets_pt() -> Iterator[tuple[float, float]]:
    """Of a label's center from its point: none, then in all directions, the nearest first."""
    yield 0.0, 0.0
    for distance in _DISTANCES_PT:
        for i in range(_NUM_DIRECTIONS):
            angle = 2 * pi * i / _NUM_DIRECTIONS
            yield distance * cos(angle), distance * sin(angle)


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
    text = re.sub(r"#010[123][0-9a-f]{2}", lambda found: _PAGE_COLORS.get(found[0], found[0]), text)
    width = figure.get_figwidth() * 96
    return Markup(  # noqa: S704 - matplotlib escapes what it writes
        text.replace("<svg ", f'<svg role="img" aria-label="{title}" style="max-width: {width:.0f}px" ', 1)
    )
