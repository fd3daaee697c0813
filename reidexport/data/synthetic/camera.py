"""A camera with its own place, light and faults, and the photographs it makes of people."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from reidexport.data.synthetic.figure import draw_figure
from reidexport.data.synthetic.pose import Pose
from reidexport.data.synthetic.scenery import Picture, backdrop, obstacle
from reidexport.data.synthetic.sheet import Frame
from reidexport.data.synthetic.wardrobe import DrawnPerson, dress

_SUPERSAMPLING = 4


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera: what it looks at, and what it does to the light."""

    scene: Picture
    gains: npt.NDArray[np.float64]
    brightness: float
    contrast: float
    blur_px: float
    noise: float
    quality: int
    scale: float
    tilt: float
    light: float


@dataclass(frozen=True)
class Shot:
    """How one image is taken: the pose, and how badly the box around the person was cut.

    ``shift_x``, ``shift_y`` and ``zoom`` are relative to the image's width, height, and the usual size.
    """

    pose: Pose
    shift_x: float
    shift_y: float
    zoom: float
    occluded: bool


def install_camera(rng: np.random.Generator, height: int, width: int) -> Camera:
    """A camera drawn at random, for images of a size in pixels."""
    return Camera(
        scene=backdrop(rng, height, 8 * width),
        gains=np.exp(rng.normal(0, 0.035, 3)),
        brightness=rng.uniform(0.84, 1.16),
        contrast=rng.uniform(0.84, 1.14),
        blur_px=rng.uniform(0.15, 0.8),
        noise=rng.uniform(1.5, 5),
        quality=int(rng.integers(70, 94)),
        scale=rng.uniform(0.88, 0.95),
        tilt=rng.uniform(0, 0.1),
        light=rng.choice([-1, 1]) * rng.uniform(0.15, 0.4),
    )


def photograph(
    person: DrawnPerson, camera: Camera, shot: Shot, rng: np.random.Generator, size: tuple[int, int]
) -> bytes:
    """Photograph a person: a JPEG of ``size`` (height, width)."""
    height, width = size
    left = int(rng.integers(camera.scene.shape[1] - width + 1))
    picture = camera.scene[:, left : left + width].copy()
    frame = _frame(person, camera, shot, size)
    _drop_shadow(picture, frame)
    figure = draw_figure(person, shot.pose, frame).resize((width, height), Image.Resampling.BOX)
    _lay_over(picture, figure, camera, rng)
    if shot.occluded:
        _lay_over(picture, _in_the_way(camera, shot, rng, size), camera, rng)
    return _developed(picture, camera, rng)


def _frame(person: DrawnPerson, camera: Camera, shot: Shot, size: tuple[int, int]) -> Frame:
    height, width = (_SUPERSAMPLING * side for side in size)
    figure = height * camera.scale * shot.zoom * (0.6 + 0.4 * person.height)
    foot_y = height * (0.5 + camera.scale / 2 + shot.shift_y)
    return Frame(width, height, width * (0.5 + shot.shift_x), foot_y, figure, camera.tilt)


def _drop_shadow(picture: Picture, frame: Frame) -> None:
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width]
    across = (x - frame.foot_x / _SUPERSAMPLING) / (0.3 * width)
    down = (y - frame.foot_y / _SUPERSAMPLING) / (0.03 * height)
    picture *= (1 - 0.45 * np.exp(-(across**2) - down**2))[..., None]


def _in_the_way(camera: Camera, shot: Shot, rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A thing, or a passer-by who is cut by the edge of the image."""
    height, width = size
    if rng.random() < 0.5:
        return obstacle(rng, height, width)
    stranger, aside = dress(rng), rng.choice([-1, 1]) * rng.uniform(0.44, 0.56)
    beside = Shot(Pose(rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi), 0.16), aside, 0.04, 1.05, False)
    figure = draw_figure(stranger, beside.pose, _frame(stranger, camera, beside, size))
    return figure.resize((width, height), Image.Resampling.BOX)


def _lay_over(picture: Picture, layer: Image.Image, camera: Camera, rng: np.random.Generator) -> None:
    """Blend a layer in, rounded by light from one side and roughened by folds."""
    pixels = np.asarray(layer, np.float32)
    alpha = pixels[..., 3:] / 255
    soft = np.asarray(layer.getchannel("A").filter(ImageFilter.GaussianBlur(3)), np.float32) / 255
    relief = np.roll(soft, -2, axis=1) - np.roll(soft, 2, axis=1)
    height, width = soft.shape
    coarse = Image.fromarray(rng.normal(size=(height // 9, width // 9)).astype(np.float32))
    folds = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    shade = 0.97 + camera.light * relief + 0.06 * folds
    picture *= 1 - alpha
    picture += alpha * pixels[..., :3] * shade[..., None]


def _developed(picture: Picture, camera: Camera, rng: np.random.Generator) -> bytes:
    exposure = camera.brightness * rng.uniform(0.93, 1.07)
    lit = (picture * exposure * camera.gains - 118) * camera.contrast + 118
    noisy = lit + rng.normal(0, camera.noise, picture.shape)
    image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    image.filter(ImageFilter.GaussianBlur(camera.blur_px)).save(buffer, "JPEG", quality=camera.quality)
    return buffer.getvalue()
