"""A person in a pose, drawn on a transparent sheet."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from reidexport.synthetic.pose import Limb, Pose, arms, body_width, legs
from reidexport.synthetic.wardrobe import Cloth, Colour, Person

# Detection boxes are stretched to one shape, which makes people look wider than they are.
_STRETCH = 1.2

Points = npt.NDArray[np.float64]
Paint = Colour | Image.Image


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
    """The picture being drawn and where the figure stands in it."""

    image: Image.Image
    frame: Frame

    def polygon(self, points: Points | Sequence[tuple[float, float]], paint: Paint) -> None:
        """Fill a polygon, given in body heights, with a colour or with cloth."""
        outline = self.frame.pixels(np.asarray(points, float))
        if isinstance(paint, tuple):
            ImageDraw.Draw(self.image).polygon(outline, fill=(*paint, 255))
            return
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon(outline, fill=255)
        box = mask.getbbox()
        if box:
            self.image.paste(paint.crop(box), box, mask.crop(box))

    def ellipse(self, x: float, y: float, radius_x: float, radius_y: float, paint: Paint) -> None:
        """Fill an ellipse, given in body heights."""
        angles = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        self.polygon(np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1), paint)

    def capsule(self, start: Points, end: Points, radius: float, end_radius: float, paint: Paint) -> None:
        """Fill a rounded limb that tapers from one radius to another."""
        along = np.arctan2(*(end - start)[::-1])
        arc = np.linspace(np.pi / 2, 3 * np.pi / 2, 9) + along
        turn = np.stack([np.cos(arc), np.sin(arc)], axis=1)
        self.polygon(np.concatenate([start + radius * turn, end - end_radius * turn]), paint)


def draw_figure(person: Person, pose: Pose, frame: Frame) -> Image.Image:
    """Draw a person; RGBA of the frame's size, not smoothed (draw large and shrink)."""
    sheet = Sheet(Image.new("RGBA", (frame.width, frame.height)), frame)
    upper, lower = _paint(person.upper, frame, pose), _paint(person.lower, frame, pose)
    far_arm, near_arm = arms(person, pose)
    _draw_arm(sheet, person, far_arm, upper)
    _draw_legs(sheet, person, pose, lower)
    if person.bag == "backpack" and pose.front > -0.25:
        _draw_backpack(sheet, person, pose)
    _draw_torso(sheet, person, pose, upper)
    if person.bag == "backpack" and pose.front <= -0.25:
        _draw_backpack(sheet, person, pose)
    _draw_head(sheet, person, pose)
    _draw_arm(sheet, person, near_arm, upper)
    if person.bag in ("shoulder", "hand"):
        _draw_carried(sheet, person, pose, near_arm)
    return sheet.image


def _paint(cloth: Cloth, frame: Frame, pose: Pose) -> Paint:
    """Cloth as a picture that moves and turns with the body; a plain one is just its colour."""
    if cloth.texture in ("plain", "logo"):
        return cloth.colour
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
    indexed.putpalette(np.linspace(cloth.colour, cloth.second, 3).astype(np.uint8).tobytes())
    return indexed.convert("RGBA")


def _shaded(colour: Colour, factor: float) -> Colour:
    return int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor)


def _draw_legs(sheet: Sheet, person: Person, pose: Pose, lower: Paint) -> None:
    thick = person.build**0.5
    for leg in legs(person, pose):
        toe = leg.end + [0.05 * pose.side, -0.022 + 0.012 * (1 - abs(pose.side))]
        sheet.capsule(leg.end + [0, -0.012], toe, 0.02, 0.016, person.shoes)
        trousers = person.lower_kind == "trousers"
        sheet.capsule(leg.middle, leg.end, 0.037 * thick, 0.026, lower if trousers else person.skin)
        sheet.capsule(
            leg.start, leg.middle, 0.054 * thick, 0.04 * thick, person.skin if _bare(person) else lower
        )
        if person.lower_kind == "shorts":
            sheet.capsule(leg.start, leg.middle, 0.06 * thick, 0.052 * thick, lower)
    if person.lower_kind == "skirt":
        half = 0.085 * person.build * body_width(pose)
        sway = 0.3 * pose.stride * np.sin(pose.phase) * pose.side
        hem = 1.45 * half
        sheet.polygon([(-half, 0.54), (half, 0.54), (hem + sway, 0.29), (-hem + sway, 0.29)], lower)


def _bare(person: Person) -> bool:
    return person.lower_kind == "skirt"


def _draw_torso(sheet: Sheet, person: Person, pose: Pose, upper: Paint) -> None:
    width = person.build * body_width(pose)
    neck, shoulder, waist, hem = (
        0.034,
        0.118 * width,
        0.088 * width,
        (0.096 + 0.04 * (0.47 - person.hem)) * width,
    )
    left = [
        (-neck, 0.85),
        (-0.75 * shoulder, 0.833),
        (-shoulder, 0.8),
        (-0.92 * shoulder, 0.72),
        (-waist, 0.6),
    ]
    outline = [*left, (-hem, person.hem)]
    sheet.capsule(np.array([0, 0.8]), np.array([0, 0.88]), 0.034, 0.03, person.skin)
    sheet.polygon([*outline, *((-x, y) for x, y in reversed(outline))], upper)
    if person.inner and pose.front > 0.2:
        half, middle = 0.036 * width, 0.02 * pose.side
        sheet.polygon(
            [
                (middle - half, 0.84),
                (middle + half, 0.84),
                (middle + 0.7 * half, person.hem),
                (middle - 0.7 * half, person.hem),
            ],
            person.inner,
        )
    elif person.upper.texture == "logo" and pose.front > -0.1:
        half, middle = 0.055 * width * max(pose.front, 0.2), 0.045 * pose.side
        sheet.polygon(
            [(middle - half, 0.78), (middle + half, 0.78), (middle + half, 0.68), (middle - half, 0.68)],
            person.upper.second,
        )


def _draw_arm(sheet: Sheet, person: Person, arm: Limb, upper: Paint) -> None:
    thick = person.build**0.5
    sheet.capsule(arm.middle, arm.end, 0.027 * thick, 0.02, person.skin)
    sheet.ellipse(*arm.end, 0.022, 0.026, person.skin)
    sleeve = _shaded(upper, 0.9) if isinstance(upper, tuple) else upper
    if person.sleeves == "long":
        sheet.capsule(arm.middle, arm.middle + 0.88 * (arm.end - arm.middle), 0.034 * thick, 0.027, sleeve)
        sheet.capsule(arm.start, arm.middle, 0.04 * thick, 0.034 * thick, sleeve)
    else:
        sheet.capsule(arm.start, arm.middle, 0.032 * thick, 0.027 * thick, person.skin)
        sheet.capsule(
            arm.start, arm.start + 0.7 * (arm.middle - arm.start), 0.042 * thick, 0.04 * thick, sleeve
        )


def _draw_head(sheet: Sheet, person: Person, pose: Pose) -> None:
    radius, x, y = person.head, 0.012 * pose.side, 0.93
    narrow, tall = 0.8 * radius, 1.12 * radius
    hair = person.skin if person.hair_style == "bald" else person.hair
    if person.hair_style == "long" and pose.front > -0.2:
        sheet.ellipse(x - 0.03 * pose.side, y - 0.03, 1.05 * radius, 1.4 * radius, person.hair)
    if person.hair_style == "bun":
        sheet.ellipse(x - 0.05 * pose.side, y + 0.85 * tall, 0.4 * radius, 0.4 * radius, person.hair)
    sheet.ellipse(x, y, narrow, tall, person.skin)
    sheet.ellipse(x - 0.016 * pose.side, y + 0.58 * tall, 1.02 * narrow, 0.5 * tall, hair)
    if pose.front < 0.2:
        back = 1.5 if person.hair_style == "long" else 0.95
        sheet.ellipse(
            x - 0.028 * pose.side, y - 0.25 * tall * (back - 0.95), 0.92 * narrow, back * tall, hair
        )
        if pose.front > -0.5:
            sheet.ellipse(x + 0.024 * pose.side, y - 0.2 * tall, 0.62 * narrow, 0.72 * tall, person.skin)
    if person.hat:
        sheet.ellipse(x, y + 0.5 * tall, 1.08 * narrow, 0.62 * tall, person.hat)
        brim = x + 0.055 * pose.side
        sheet.ellipse(brim, y + 0.3 * tall, 0.95 * narrow, 0.16 * tall, _shaded(person.hat, 0.75))


def _draw_backpack(sheet: Sheet, person: Person, pose: Pose) -> None:
    width = person.build * body_width(pose)
    x, half = -0.1 * pose.side * person.build, 0.08 * width * max(abs(pose.front), 0.55)
    sheet.ellipse(x, 0.77, half, 0.05, person.bag_colour)
    sheet.polygon(
        [(x - half, 0.77), (x + half, 0.77), (x + 1.05 * half, 0.575), (x - 1.05 * half, 0.575)],
        person.bag_colour,
    )
    sheet.polygon(
        [(x - 0.7 * half, 0.67), (x + 0.7 * half, 0.67), (x + 0.7 * half, 0.595), (x - 0.7 * half, 0.595)],
        _shaded(person.bag_colour, 0.7),
    )


def _draw_carried(sheet: Sheet, person: Person, pose: Pose, arm: Limb) -> None:
    dark = _shaded(person.bag_colour, 0.72)
    if person.bag == "hand":
        x, y = arm.end
        sheet.polygon(
            [(x - 0.045, y - 0.03), (x + 0.045, y - 0.03), (x + 0.055, y - 0.13), (x - 0.055, y - 0.13)],
            person.bag_colour,
        )
        sheet.capsule(np.array([x - 0.03, y - 0.03]), np.array([x, y]), 0.006, 0.006, dark)
        return
    width = person.build * body_width(pose)
    hip = np.array([0.1 * width, 0.52])
    sheet.capsule(np.array([-0.075 * width, 0.835]), hip, 0.009, 0.009, dark)
    sheet.polygon(hip + [(-0.055, 0.04), (0.05, 0.04), (0.05, -0.06), (-0.055, -0.06)], person.bag_colour)
    sheet.polygon(hip + [(-0.055, 0.04), (0.05, 0.04), (0.05, -0.005), (-0.055, -0.005)], dark)
