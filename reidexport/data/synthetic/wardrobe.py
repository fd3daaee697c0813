"""Who a drawn person is: the build, the hair and the clothes that stay the same under every camera."""

from dataclasses import dataclass

import numpy as np

Color = tuple[int, int, int]

_SKIN = ((244, 208, 177), (231, 188, 150), (206, 158, 120), (161, 112, 78), (110, 74, 52), (78, 52, 38))
_HAIR = ((24, 20, 18), (46, 32, 24), (84, 56, 36), (128, 88, 50), (178, 142, 92), (120, 116, 112))
_FABRIC = (
    *((34, 36, 42), (58, 60, 66), (112, 114, 118), (176, 176, 172), (228, 226, 220)),
    *((38, 52, 88), (66, 98, 150), (128, 166, 200), (146, 40, 44), (196, 72, 56)),
    *((214, 144, 62), (220, 194, 96), (52, 88, 62), (112, 136, 82), (106, 76, 54)),
    *((176, 148, 112), (108, 64, 116), (206, 132, 156), (40, 122, 124)),
)
_TROUSERS = (
    *((32, 34, 40), (48, 58, 84), (72, 92, 128), (116, 134, 160), (70, 70, 72)),
    *((140, 134, 122), (176, 158, 126), (92, 76, 60), (78, 86, 62), (208, 204, 196)),
)


@dataclass(frozen=True)
class Cloth:
    """A fabric: ``texture`` says where the second color shows; ``period`` is in body heights."""

    texture: str
    color: Color
    second: Color
    period: float


@dataclass(frozen=True)
class DrawnPerson:
    """Lengths are in body heights, except ``height``, which is relative to the average person."""

    height: float
    build: float
    hip: float
    head: float
    skin: Color
    hair: Color
    hair_style: str
    hat: Color | None
    upper: Cloth
    sleeves: str
    hem: float
    inner: Color | None
    lower: Cloth
    lower_kind: str
    shoes: Color
    bag: str
    bag_color: Color


def dress(rng: np.random.Generator) -> DrawnPerson:
    """A person drawn at random."""
    coat = rng.random() < 0.2
    return DrawnPerson(
        height=rng.uniform(0.9, 1.06),
        build=rng.uniform(0.86, 1.2),
        hip=rng.uniform(0.475, 0.525),
        head=rng.uniform(0.058, 0.068),
        skin=_pick(rng, _SKIN, spread=8),
        hair=_pick(rng, _HAIR, spread=8),
        hair_style=str(rng.choice(["short", "short", "long", "bun", "bald"], p=[0.3, 0.2, 0.3, 0.12, 0.08])),
        hat=_pick(rng, _FABRIC) if rng.random() < 0.18 else None,
        upper=_cloth(rng, _FABRIC, ["plain", "stripes", "columns", "checks", "logo", "block"]),
        sleeves="long" if coat or rng.random() < 0.55 else "short",
        hem=rng.uniform(0.3, 0.38) if coat else rng.uniform(0.44, 0.48),
        inner=_pick(rng, _FABRIC) if coat or rng.random() < 0.15 else None,
        lower=_cloth(rng, _TROUSERS, ["plain", "plain", "plain", "plain", "columns", "checks"], scale=0.45),
        lower_kind=str(rng.choice(["trousers", "shorts", "skirt"], p=[0.66, 0.18, 0.16])),
        shoes=_pick(rng, _FABRIC[:5] + _FABRIC[8:10] + _FABRIC[14:15]),
        bag=str(rng.choice(["none", "backpack", "shoulder", "hand"], p=[0.42, 0.26, 0.18, 0.14])),
        bag_color=_pick(rng, _FABRIC),
    )


def _cloth(
    rng: np.random.Generator, palette: tuple[Color, ...], textures: list[str], scale: float = 1.0
) -> Cloth:
    texture = str(rng.choice(textures))
    return Cloth(texture, _pick(rng, palette), _pick(rng, _FABRIC), scale * rng.uniform(0.022, 0.05))


def _pick(rng: np.random.Generator, palette: tuple[Color, ...], spread: int = 14) -> Color:
    mixed = np.clip(palette[rng.integers(len(palette))] + rng.integers(-spread, spread + 1, 3), 0, 255)
    return int(mixed[0]), int(mixed[1]), int(mixed[2])
