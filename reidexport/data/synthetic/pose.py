"""How a drawn person stands: a walking phase and a facing, turned into joints."""

from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from reidexport.data.synthetic.wardrobe import DrawnPerson

Point = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pose:
    """``yaw`` 0 faces the camera, pi turns the back on it; ``phase`` runs through a pair of steps. Radians."""

    yaw: float
    phase: float
    stride: float

    @property
    def front(self) -> float:
        """1 for a face, 0 for a profile, -1 for a back."""
        return float(np.cos(self.yaw))

    @property
    def side(self) -> float:
        """The direction of travel across the image: 1 to the right, -1 to the left."""
        return float(np.sin(self.yaw))


@dataclass(frozen=True)
class Limb:
    """Three joints, (x, y) in body heights above the ground, and how near to the camera the limb is."""

    start: Point
    middle: Point
    end: Point
    depth: float


def point(x: float, y: float) -> Point:
    """A point in body heights."""
    return np.array([x, y])


def body_width(pose: Pose) -> float:
    """How wide a torso looks, relative to its front."""
    return float(np.hypot(pose.front, 0.62 * pose.side))


def legs(person: DrawnPerson, pose: Pose) -> list[Limb]:
    """Both legs from hip to ankle, the farther one first."""
    return sorted((_leg(person, pose, side) for side in (-1, 1)), key=attrgetter("depth"))


def arms(person: DrawnPerson, pose: Pose) -> list[Limb]:
    """Both arms from shoulder to hand, the farther one first."""
    return sorted((_arm(person, pose, side) for side in (-1, 1)), key=attrgetter("depth"))


def _leg(person: DrawnPerson, pose: Pose, side: int) -> Limb:
    phase = pose.phase + (np.pi if side < 0 else 0)
    swing, lift = pose.stride * np.sin(phase), 0.02 * max(0.0, np.cos(phase))
    hip = point(side * 0.05 * person.build * pose.front, person.hip)
    ankle = point(0.85 * hip[0] + swing * pose.side, 0.035 + lift - 0.12 * swing * pose.front)
    knee = (hip + ankle) / 2 + point(0.025 * pose.side * (1 + np.cos(phase)), 0.01 + lift / 2)
    return Limb(hip, knee, ankle, side * pose.side + swing * pose.front)


def _arm(person: DrawnPerson, pose: Pose, side: int) -> Limb:
    phase = pose.phase + (0 if side < 0 else np.pi)
    swing = 0.6 * pose.stride * np.sin(phase)
    shoulder = point(side * 0.112 * person.build * pose.front, 0.805)
    elbow = shoulder + point(0.45 * swing * pose.side + side * 0.022 * pose.front, -0.155)
    hand = elbow + point((0.7 * swing + 0.025) * pose.side + side * 0.004 * pose.front, -0.145)
    return Limb(shoulder, elbow, hand, side * pose.side)
