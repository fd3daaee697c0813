"""How a series is marked: the same in a plot, in a strip, and in the table that is their key."""

from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.markers import MarkerStyle
from matplotlib.transforms import Affine2D

NUM_SERIES = 8  # colors that the page has, the last one gray
SHAPES = "os^DvP*X<>dp"
DASHES = ("-", "--", "-.", ":")
_DASH_PX = {"--": "6 3", "-.": "8 2 2 2", ":": "2 2.5"}


class Mark(NamedTuple):
    """A color of the page, a shape as matplotlib names it, and a line; without a shape or a line, none is drawn."""

    color: int
    shape: str = ""
    line: str = ""
    is_hollow: bool = False


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
