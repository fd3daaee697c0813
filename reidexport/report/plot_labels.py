"""Labels of points in a plot that cover no other label and no mark."""

from collections.abc import Iterator, Sequence
from math import cos, hypot, pi, sin
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

_DISTANCES_PT = (10, 11, 13, 18, 24, 31, 39, 48, 58, 70, 85, 105, 130, 160, 200)
_NUM_DIRECTIONS = 16
_WITHOUT_LEADER_PT = 14  # a label so near needs no line to its point
_FONT_PT, _LINE_PT = 9, 11
_TEXT_STYLE: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": _FONT_PT, "fontweight": "bold"}


class Label(NamedTuple):
    """A text and the point that it names, in the units of the axes."""

    x: float
    y: float
    text: str


def spread_labels(
    figure: Figure, axes: Axes, labels: Sequence[Label], *, mark_pt: float, leader_color: str
) -> None:
    """Write each label at the free place nearest to its point, with a line to a point that is far away.

    Args:
        figure: of 72 dots per inch, everything else on it: nothing may move afterwards.
        axes: of the points.
        labels: at most a few dozen.
        mark_pt: the size of the marks that no label may cover; 0 lets labels cover their points.
        leader_color: of the lines.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    points = axes.transData.transform([(label.x, label.y) for label in labels])
    taken = [_box(x, y, mark_pt, mark_pt) for x, y in points] if mark_pt else []
    frame = axes.get_window_extent()
    leader = {"arrowstyle": "-", "color": leader_color, "linewidth": 0.8, "shrinkA": 5, "shrinkB": 4}
    for label, (x, y) in zip(labels, points, strict=True):
        point = (label.x, label.y)
        written = axes.annotate(label.text, point, (0, 0), textcoords="offset points", **_TEXT_STYLE)
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
