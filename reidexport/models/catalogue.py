"""The networks that torchreid and LightMBN have beside ResNets and OSNets, by name."""

from collections.abc import Callable
from functools import partial

from reidexport.models.hacnn import HACNN
from reidexport.models.lightmbn import LightMBN
from reidexport.models.mlfn import MLFN
from reidexport.models.mobilenetv2 import WIDTHS, MobileNetV2
from reidexport.models.resnet_variants import PCB, ResNet50Mid, resnet50_ibn_b, resnext
from reidexport.models.shufflenet import ShuffleNet, ShuffleNetV2
from reidexport.models.trunk import Trunk, densenet, inception_resnet_v2, inception_v4, squeezenet, xception

Catalogued = Trunk | MobileNetV2 | ShuffleNet | ShuffleNetV2 | ResNet50Mid | MLFN | HACNN | PCB | LightMBN

RESNEXTS = ("resnext50_32x4d", "resnext101_32x8d")
DENSENETS = ("densenet121", "densenet161", "densenet169", "densenet201")
SQUEEZENETS = ("squeezenet1_0", "squeezenet1_1")
SHUFFLENETS_V2 = tuple(f"shufflenet_v2_{width}" for width in ("x0_5", "x1_0", "x1_5", "x2_0"))
PCBS = {"pcb_p4": 4, "pcb_p6": 6}
LIGHTMBNS = ("lmbn_n", "lmbn_r")
# Those whose last stride can be chosen.
_STRIDED: dict[str, Callable[[int], Catalogued]] = {
    **{name: partial(resnext, name) for name in RESNEXTS},
    "resnet50_ibn_b": resnet50_ibn_b,
    "resnet50mid": ResNet50Mid,
}
_FIXED: dict[str, Callable[[], Catalogued]] = {
    **{name: partial(MobileNetV2, width) for name, width in WIDTHS.items()},
    **{name: partial(densenet, name) for name in DENSENETS},
    **{name: partial(squeezenet, name) for name in SQUEEZENETS},
    **{name: partial(ShuffleNetV2, name.removeprefix("shufflenet_v2_")) for name in SHUFFLENETS_V2},
    "shufflenet": ShuffleNet,
    "xception": xception,
    "inceptionresnetv2": inception_resnet_v2,
    "inceptionv4": inception_v4,
    "mlfn": MLFN,
    "hacnn": HACNN,
    **{name: partial(PCB, parts) for name, parts in PCBS.items()},
    **{name: partial(LightMBN, name) for name in LIGHTMBNS},
}
CATALOGUE = (*_STRIDED, *_FIXED)
FIXED_STRIDES = tuple(_FIXED)
# Those that answer f_t themselves, and those that give a map.
VECTORS = ("resnet50mid", "mlfn", "hacnn", *PCBS, *LIGHTMBNS)
MAPS = tuple(name for name in CATALOGUE if name not in VECTORS)


def catalogued(name: str, last_stride: int) -> Catalogued:
    """A network of ``CATALOGUE``, with fresh weights."""
    return _STRIDED[name](last_stride) if name in _STRIDED else _FIXED[name]()
