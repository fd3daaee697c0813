"""What stands behind and in front of drawn people: one wide backdrop per camera, and things in the way."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Picture = npt.NDArray[np.float32]

_GROUND = {
    "pavement": (150, 146, 140),
    "asphalt": (104, 106, 110),
    "grass": (104, 126, 74),
    "tiles": (182, 172, 158),
}
_WALL = {"bricks": (148, 96, 78), "plaster": (196, 190, 176), "hedge": (70, 98, 58), "glass": (128, 148, 162)}
_GRAY = 122
_CLUTTER = ((70, 74, 80), (120, 60, 50), (60, 84, 110), (150, 140, 120), (54, 76, 58), (190, 180, 90))


def backdrop(rng: np.random.Generator, height: int, width: int) -> Picture:
    """A wall above a ground with clutter before it; float32 (height, width, 3) in [0, 255]."""
    horizon = int(height * rng.uniform(0.3, 0.5))
    ground, wall = str(rng.choice(list(_GROUND))), str(rng.choice(list(_WALL)))
    image = Image.new("RGB", (width, height), _mixed(rng, _GROUND[ground]))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width, horizon), fill=_mixed(rng, _WALL[wall]))
    _draw_wall(draw, rng, wall, width, horizon)
    _draw_ground(draw, rng, ground, width, horizon, height)
    for _ in range(int(rng.integers(5, 9))):
        _draw_clutter(draw, rng, width, horizon, height)
    # Distance fades colors: without that the place would outshine the person.
    return _GRAY + 0.6 * (np.asarray(image, np.float32) - _GRAY) + _grain(rng, height, width)


def _mixed(rng: np.random.Generator, color: tuple[int, int, int], spread: int = 22) -> tuple[int, int, int]:
    red, green, blue = np.clip(color + rng.integers(-spread, spread + 1, 3), 0, 255).tolist()
    return red, green, blue


def _draw_wall(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, kind: str, width: int, horizon: int
) -> None:
    if kind == "bricks":
        for row, y in enumerate(range(0, horizon, 5)):
            draw.line((0, y, width, y), fill=(118, 84, 72))
            for x in range(5 * (row % 2), width, 11):
                draw.line((x, y, x, y + 5), fill=(118, 84, 72))
    elif kind == "hedge":
        for x, y in zip(rng.integers(0, width, 700), rng.integers(0, horizon, 700), strict=True):
            draw.ellipse((x - 3, y - 2, x + 3, y + 2), fill=_mixed(rng, _WALL["hedge"]))
    else:
        step = int(rng.integers(24, 46))
        for x in range(0, width, step):
            pane = _mixed(rng, (88, 104, 118) if kind == "glass" else (112, 116, 122))
            draw.rectangle((x + 4, int(0.12 * horizon), x + step - 6, int(0.72 * horizon)), fill=pane)


def _draw_ground(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, kind: str, width: int, horizon: int, height: int
) -> None:
    line = {"pavement": (126, 122, 118), "tiles": (152, 142, 130), "asphalt": (196, 194, 184)}.get(kind)
    if kind == "grass":
        for x, y in zip(rng.integers(0, width, 900), rng.integers(horizon, height, 900), strict=True):
            draw.line((x, y, x + 1, y - 3), fill=_mixed(rng, _GROUND["grass"]))
    elif kind == "asphalt":
        y = horizon + (height - horizon) // 3
        draw.line((0, y, width, y), fill=line, width=3)
    else:
        for y in np.geomspace(4, height - horizon, 8):
            draw.line((0, horizon + y, width, horizon + y), fill=line)
        for x in range(-width, 2 * width, 22):
            draw.line((x, horizon, width / 2 + 2.2 * (x - width / 2), height), fill=line)
    draw.line((0, horizon, width, horizon), fill=(84, 82, 80), width=2)


def _draw_clutter(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, horizon: int, height: int
) -> None:
    x, color = int(rng.integers(width)), _mixed(rng, _CLUTTER[rng.integers(len(_CLUTTER))])
    base = horizon + int((height - horizon) * rng.uniform(0.05, 0.35))
    kind = rng.integers(4)
    if kind == 0:  # a lamp post
        draw.rectangle((x, 0, x + 2, base), fill=(62, 64, 68))
    elif kind == 1:  # a bin
        draw.rectangle((x, base - 22, x + 13, base), fill=color)
        draw.rectangle((x - 1, base - 25, x + 14, base - 21), fill=(52, 54, 58))
    elif kind == 2:  # a bench
        draw.rectangle((x, base - 14, x + 34, base - 10), fill=color)
        draw.rectangle((x + 2, base - 10, x + 5, base), fill=(60, 58, 56))
        draw.rectangle((x + 29, base - 10, x + 32, base), fill=(60, 58, 56))
    else:  # a parked car
        draw.rounded_rectangle((x, base - 24, x + 70, base - 5), 7, fill=color)
        draw.rounded_rectangle((x + 13, base - 37, x + 54, base - 18), 7, fill=_mixed(rng, (64, 74, 84)))
        for wheel in (x + 14, x + 54):
            draw.ellipse((wheel - 6, base - 11, wheel + 6, base + 1), fill=(32, 32, 34))


def _grain(rng: np.random.Generator, height: int, width: int) -> Picture:
    coarse = rng.normal(0, 9, (height // 8 + 1, width // 8 + 1)).astype(np.float32)
    soft = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    fine = rng.normal(0, 4, (height, width))
    return (np.asarray(soft) + fine).astype(np.float32)[..., None]


def obstacle(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Something between camera and person, RGBA: a post, a railing, or a bush."""
    image = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(image)
    kind, color = rng.integers(3), _mixed(rng, _CLUTTER[rng.integers(len(_CLUTTER))])
    if kind == 0:
        x = rng.uniform(0.1, 0.9) * width
        draw.rectangle((x - 0.06 * width, 0, x + 0.06 * width, height), fill=(*color, 255))
    elif kind == 1:
        y = rng.uniform(0.6, 0.78) * height
        for offset in (0, 0.1, 0.2):
            draw.rectangle((0, y + offset * height, width, y + (offset + 0.03) * height), fill=(*color, 255))
    else:
        for _ in range(26):
            x, y = rng.uniform(0, 1) * width, rng.uniform(0.76, 1) * height
            draw.ellipse((x - 8, y - 6, x + 8, y + 6), fill=(*_mixed(rng, (64, 96, 52)), 255))
    return image
