"""What a drawn person carries."""

from reidexport.data.synthetic.pose import Limb, Pose, body_width, point
from reidexport.data.synthetic.sheet import Sheet, shaded
from reidexport.data.synthetic.wardrobe import DrawnPerson


def draw_backpack(sheet: Sheet, person: DrawnPerson, pose: Pose) -> None:
    """On the back; draw it before the torso when the person faces the camera, else after it."""
    width = person.build * body_width(pose)
    x, half = -0.1 * pose.side * person.build, 0.08 * width * max(abs(pose.front), 0.55)
    sheet.ellipse(x, 0.77, half, 0.05, person.bag_color)
    sheet.trapezoid(x, (0.77, half), (0.575, 1.05 * half), person.bag_color)
    sheet.trapezoid(x, (0.67, 0.7 * half), (0.595, 0.7 * half), shaded(person.bag_color, 0.7))


def draw_carried(sheet: Sheet, person: DrawnPerson, pose: Pose, arm: Limb) -> None:
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
