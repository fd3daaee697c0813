"""A person in a pose, drawn on a transparent sheet."""

import numpy as np
from PIL import Image

from reidexport.data.synthetic.pose import Limb, Pose, arms, body_width, legs, point
from reidexport.data.synthetic.sheet import Frame, Paint, Sheet, paint_of, shaded
from reidexport.data.synthetic.wardrobe import DrawnPerson


def draw_figure(person: DrawnPerson, pose: Pose, frame: Frame) -> Image.Image:
    """Draw a person; RGBA of the frame's size, not smoothed (draw large and shrink)."""
    sheet = Sheet(Image.new("RGBA", (frame.width, frame.height)), frame)
    upper, lower = paint_of(person.upper, frame, pose), paint_of(person.lower, frame, pose)
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


def _draw_legs(sheet: Sheet, person: DrawnPerson, pose: Pose, lower: Paint) -> None:
    thick = person.build**0.5
    thigh = person.skin if person.lower_kind == "skirt" else lower
    shin = lower if person.lower_kind == "trousers" else person.skin
    for leg in legs(person, pose):
        toe = leg.end + point(0.05 * pose.side, -0.022 + 0.012 * (1 - abs(pose.side)))
        sheet.capsule(leg.end - point(0, 0.012), toe, 0.02, 0.016, person.shoes)
        sheet.capsule(leg.middle, leg.end, 0.037 * thick, 0.026, shin)
        sheet.capsule(leg.start, leg.middle, 0.054 * thick, 0.04 * thick, thigh)
        if person.lower_kind == "shorts":
            sheet.capsule(leg.start, leg.middle, 0.06 * thick, 0.052 * thick, lower)
    if person.lower_kind == "skirt":
        half = 0.085 * person.build * body_width(pose)
        sway = 0.3 * pose.stride * np.sin(pose.phase) * pose.side
        sheet.trapezoid(0, (0.54, half), (0.29, 1.45 * half), lower, sway)


def _draw_torso(sheet: Sheet, person: DrawnPerson, pose: Pose, upper: Paint) -> None:
    width = person.build * body_width(pose)
    shoulder, hem = 0.118 * width, (0.096 + 0.04 * (0.47 - person.hem)) * width
    left = [(-0.034, 0.85), (-0.75 * shoulder, 0.833), (-shoulder, 0.8), (-0.92 * shoulder, 0.72)]
    left += [(-0.088 * width, 0.6), (-hem, person.hem)]
    sheet.capsule(point(0, 0.8), point(0, 0.88), 0.034, 0.03, person.skin)
    sheet.polygon([*left, *((-x, y) for x, y in reversed(left))], upper)
    if person.inner and pose.front > 0.2:
        half = 0.036 * width
        sheet.trapezoid(0.02 * pose.side, (0.84, half), (person.hem, 0.7 * half), person.inner)
    elif person.upper.texture == "logo" and pose.front > -0.1:
        half = 0.055 * width * max(pose.front, 0.2)
        sheet.trapezoid(0.045 * pose.side, (0.78, half), (0.68, half), person.upper.second)


def _draw_arm(sheet: Sheet, person: DrawnPerson, arm: Limb, upper: Paint) -> None:
    thick = person.build**0.5
    sheet.capsule(arm.middle, arm.end, 0.027 * thick, 0.02, person.skin)
    sheet.ellipse(arm.end[0], arm.end[1], 0.022, 0.026, person.skin)
    sleeve = shaded(upper, 0.9) if isinstance(upper, tuple) else upper
    if person.sleeves == "long":
        sheet.capsule(arm.middle, arm.middle + 0.88 * (arm.end - arm.middle), 0.034 * thick, 0.027, sleeve)
        sheet.capsule(arm.start, arm.middle, 0.04 * thick, 0.034 * thick, sleeve)
    else:
        sheet.capsule(arm.start, arm.middle, 0.032 * thick, 0.027 * thick, person.skin)
        sheet.capsule(
            arm.start, arm.start + 0.7 * (arm.middle - arm.start), 0.042 * thick, 0.04 * thick, sleeve
        )


def _draw_head(sheet: Sheet, person: DrawnPerson, pose: Pose) -> None:
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
        sheet.ellipse(brim, y + 0.3 * tall, 0.95 * narrow, 0.16 * tall, shaded(person.hat, 0.75))


def _draw_backpack(sheet: Sheet, person: DrawnPerson, pose: Pose) -> None:
    """On the back: behind the torso where the person faces the camera, else before it."""
    width = person.build * body_width(pose)
    x, half = -0.1 * pose.side * person.build, 0.08 * width * max(abs(pose.front), 0.55)
    sheet.ellipse(x, 0.77, half, 0.05, person.bag_color)
    sheet.trapezoid(x, (0.77, half), (0.575, 1.05 * half), person.bag_color)
    sheet.trapezoid(x, (0.67, 0.7 * half), (0.595, 0.7 * half), shaded(person.bag_color, 0.7))


def _draw_carried(sheet: Sheet, person: DrawnPerson, pose: Pose, arm: Limb) -> None:
    """In the hand of the nearer arm, or on a strap over the shoulder."""
    dark = shaded(person.bag_color, 0.72)
    if person.bag == "hand":
        x, y = arm.end
        sheet.trapezoid(x, (y - 0.03, 0.045), (y - 0.13, 0.055), person.bag_color)
        sheet.capsule(point(x - 0.03, y - 0.03), arm.end, 0.006, 0.006, dark)
        return
    width = person.build * body_width(pose)
    x, y = 0.1 * width, 0.52
    sheet.capsule(point(-0.075 * width, 0.835), point(x, y), 0.009, 0.009, dark)
    sheet.trapezoid(x, (y + 0.04, 0.053), (y - 0.06, 0.053), person.bag_color)
    sheet.trapezoid(x, (y + 0.04, 0.053), (y - 0.005, 0.053), dark)
