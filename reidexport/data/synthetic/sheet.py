"""The sheet a figure is drawn on: shapes in body heights, filled with colors or cloth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from reidexport.data.synthetic.pose import Pose, body_width
from reidexport.data.synthetic.wardrobe import Cloth, Color

# Detection boxes are stretched to one shape, which makes people look wider than they are.
_STRETCH = 1.2

Points = npt.NDArray[np.float64]
Paint = Color | Image.Image


@dataclass(frozen=True)
class Frame:
    """Where a figure goes: sheet size, the spot it stands on, and its height, all in pixels of the sheet.

    ``tilt`` 0 looks straight ahead; more looks down from higher up and shortens the legs.
    """

    width: int
    height: int
    foot_x: float
    foot_y: float
    figure: float
    tilt: float

    def pixels(self, points: Points) -> list[tuple[float, float]]:
        """Sheet coordinates of (x, y) points in body heights."""
        x = self.foot_x + points[:, 0] * self.figure * _STRETCH
        y = self.foot_y - points[:, 1] * (1 - self.tilt * (1 - points[:, 1])) * self.figure
        return list(zip(x.tolist(), y.tolist(), strict=True))


@dataclass(frozen=True)
class Sheet:
    """The drawing and where the figure stands in it."""

    image: Image.Image
    frame: Frame

    def polygon(self, points: Points | Sequence[tuple[float, float]], paint: Paint) -> None:
        """Fill a polygon, in body heights, with a color or with cloth."""
        outline = self.frame.pixels(np.asarray(points, float))
        if isinstance(paint, tuple):
            ImageDraw.Draw(self.image).polygon(outline, fill=(*paint, 255))
            return
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon(outline, fill=255)
        box = mask.getbbox()
        if box:
            self.image.paste(paint.crop(box), box, mask.crop(box))

    def trapezoid(
        self, x: float, top: tuple[float, float], bottom: tuple[float, float], paint: Paint, sway: float = 0
    ) -> None:
        """Fill a symmetric shape around ``x``: (height, half width) of its top and of its bottom edge."""
        (top_y, top_half), (low_y, low_half) = top, bottom
        low = x + sway
        corners = [
            (x - top_half, top_y),
            (x + top_half, top_y),
            (low + low_half, low_y),
            (low - low_half, low_y),
        ]
        self.polygon(corners, paint)

    def ellipse(self, x: float, y: float, radius_x: float, radius_y: float, paint: Paint) -> None:
        """Fill an ellipse, in body heights."""
        angles = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        self.polygon(np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1), paint)

    def capsule(self, start: Points, end: Points, radius: float, end_radius: float, paint: Paint) -> None:
        """Fill a rounded limb that tapers from one radius to another."""
        along = np.arctan2(*(end - start)[::-1])
        arc = np.linspace(np.pi / 2, 3 * np.pi / 2, 9) + along
        turn = np.stack([np.cos(arc), np.sin(arc)], axis=1)
        self.polygon(np.concatenate([start + radius * turn, end - end_radius * turn]), paint)


def paint_of(cloth: Cloth, frame: Frame, pose: Pose) -> Paint:
    """Cloth as an image that moves and turns with the body; a plain one is just its color."""
    if cloth.texture in ("plain", "logo"):
        return cloth.color
    x = (np.arange(frame.width) - frame.foot_x) / (_STRETCH * frame.figure * body_width(pose))
    y = (frame.foot_y - np.arange(frame.height)) / frame.figure
    across, down = np.floor(x / cloth.period) % 2, np.floor(y / cloth.period)[:, None] % 2
    share = {
        "stripes": 2 * down + 0 * across,
        "columns": 2 * across + 0 * down,
        "checks": across + down,
        "block": 2 * (y < 0.67)[:, None] + 0 * across,
    }[cloth.texture]
    indexed = Image.fromarray(share.astype(np.uint8))
    indexed.putpalette(np.linspace(cloth.color, cloth.second, 3).astype(np.uint8).tobytes())
    return indexed.convert("RGBA")


def shaded(color: Color, factor: float) -> Color:
    """A color made darker."""
    return int(color[0] * factor), int(color[1] * factor), int(color[2] * factor)
