"""ONNX files of other projects, recognized by metadata, names and shapes, with what is known of their images.

What is said here of a project was looked up in its own code and documents in November 2026:

* ultralytics 8.4.190: ``engine/exporter.py`` (names, metadata), ``trackers/utils/reid.py`` (RGB / 255, stretched);
* boxmot 25.0.0: ``reid/exporters/backends/onnx.py``, ``reid/backends/base_backend.py``; earlier versions, and
  torchreid's ``tools/export.py``, call the output "output";
* NVIDIA TAO: ``cv/re_identification/scripts/export.py``; ``experiment_specs/*.yaml``, other for ResNet than for Swin;
* fast-reid: ``tools/deploy/onnx_export.py`` and ``onnx_inference.py``; its networks take 0 to 255;
* deep-object-reid, from which OpenVINO's person-reidentification-retail come: ``scripts/default_config.py``. Those
  themselves are published as OpenVINO's IR only.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reidruntime.artifact.manifest import IMAGENET_MEAN, IMAGENET_STD, Channels3, Origin
from reidruntime.artifact.onnx_metadata import OnnxFile, Shape

_TAO_STD = (0.226, 0.226, 0.226)
_HALF = (0.5, 0.5, 0.5)
_ZERO, _ONE, _255TH = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1 / 255, 1 / 255, 1 / 255)
OPTIONS = {
    "size": "--size",
    "mean": "--mean",
    "std": "--std",
    "channel_order": "--channel-order",
    "layout": "--layout",
    "resize": "--resize",
}
_BOXMOT_SIZES = ((256, 128), (384, 128), (160, 64))
_Found = tuple[str, dict[str, Any], tuple[str, ...]]  # project, facts, and which of them the file tells
_MAP, _FLAT = 4, 2  # dimensions of a batch of images, and of embeddings


@dataclass(frozen=True)
class Recognized:
    """What is known of the images of an ONNX file that carries no manifest.

    Attributes:
        project: whose export it is taken for, such as "ultralytics".
        facts: by name of :class:`reidruntime.ImageInput`'s fields, but "size" for both of its numbers.
        read: those of them that the file itself tells; the others are assumed.
    """

    project: str
    facts: Mapping[str, Any]
    read: frozenset[str] = frozenset()

    def origins(self, told: Collection[str]) -> dict[str, Origin]:
        """Where each fact comes from, where some were told instead."""
        known: dict[str, Origin] = {name: "read" if name in self.read else "assumed" for name in self.facts}
        return known | dict.fromkeys(told, "told")

    def lines(self, told: Collection[str]) -> list[str]:
        """The facts that were not told in words: those that were read in one line, a line for each assumption."""
        texts = {name: _text(name, value) for name, value in self.facts.items() if name not in told}
        read = [text for name, text in texts.items() if name in self.read]
        assumed = [
            f"assumed: {text} (as in {self.project}'s exports; set with {OPTIONS[name]})"
            for name, text in texts.items()
            if name not in self.read
        ]
        return [*([f"read: {', '.join(read)}"] if read else []), *assumed]


@dataclass(frozen=True)
class _Look:
    """A file with one input of images and one output of embeddings: their names, height and width, dimensions."""

    image: str
    size: tuple[int | None, int | None]
    output: str
    dim: int | None
    file: OnnxFile


def recognize(file: OnnxFile) -> Recognized | None:
    """The project that exported a file, or None: its name, which everyone can change, is not looked at.

    Args:
        file: from :func:`reidruntime.artifact.onnx_metadata.read_onnx`.
    """
    look = _look(file)
    found = next((found for found in _rules(look) if found), None) if look else None
    if look is None or found is None:
        return None
    project, facts, read = found
    size = _size(look)
    facts = {"channel_order": "RGB", "layout": "NCHW", **facts, **({"size": size} if size else {})}
    return Recognized(project, facts, frozenset({"layout", *(("size",) if size else ()), *read}))


def _text(name: str, value: Any) -> str:
    """A fact in words, as those of checkpoints are."""
    if name == "size":
        return f"input {value[0]}x{value[1]} px"
    if name in ("mean", "std"):
        return f"{name} {', '.join(f'{number:.4g}' for number in value)}"
    return f"{value} { {'channel_order': 'channels', 'layout': 'layout', 'resize': 'resizing'}[name] }"


def _rules(look: _Look) -> Iterator[_Found | None]:
    """What each project's rule says, the most certain first."""
    yield _ultralytics(look)
    yield _tao(look)
    yield _fast_reid(look)
    yield _deep_object_reid(look)
    yield _boxmot(look)


def _ultralytics(look: _Look) -> _Found | None:
    if look.file.metadata.get("author") != "Ultralytics" or look.image != "images":
        return None
    # Its classifiers have the same form: as many numbers as names.
    num_names = len(re.findall(r"(?:^\{|, )\d+: ", look.file.metadata.get("names", "")))
    if look.file.metadata.get("task") == "classify" and look.dim in (None, num_names):
        return None
    return "ultralytics", _pixels(_ZERO, _ONE), ()


def _tao(look: _Look) -> _Found | None:
    if (look.image, look.output) != ("input", "fc_pred"):
        return None
    if "Softmax" in look.file.operators:
        return "NVIDIA TAO (Swin)", _pixels(_HALF, _HALF), ()
    return "NVIDIA TAO (ResNet)", _pixels(IMAGENET_MEAN, _TAO_STD), ()


def _fast_reid(look: _Look) -> _Found | None:
    """Its networks subtract a mean of pixels of 0 to 255, by channel, and divide by their deviation."""
    ops = [op for op, _ in look.file.start]
    if ops[:2] != ["Sub", "Div"]:
        return None
    mean, std = (numbers for _, numbers in look.file.start[:2])
    if len(mean) != len(std) or len(mean) != len(_ZERO) or min(*mean, *std) < 2:
        return None
    order = {"channel_order": "BGR" if mean[0] < mean[-1] else "RGB"}
    read = ("mean", "std", *(("channel_order",) if mean[0] != mean[-1] else ()))
    return "fast-reid", {**_pixels(_ZERO, _255TH), "resize": "bicubic", **order}, read


def _deep_object_reid(look: _Look) -> _Found | None:
    if (look.image, look.output) != ("data", "reid_embedding"):
        return None
    return "deep-object-reid", _pixels(IMAGENET_MEAN, IMAGENET_STD), ()


def _boxmot(look: _Look) -> _Found | None:
    if look.image != "images" or look.output not in ("output", "output0") or look.file.metadata.get("author"):
        return None
    if look.size not in _BOXMOT_SIZES or look.file.start:
        return None
    project = "boxmot" if look.output == "output0" else "torchreid and boxmot"
    return project, _pixels(IMAGENET_MEAN, IMAGENET_STD), ()


def _pixels(mean: Channels3, std: Channels3) -> dict[str, Any]:
    return {"mean": mean, "std": std, "resize": "bilinear"}


def _look(file: OnnxFile) -> _Look | None:
    """A file with one input of images in floats, NCHW, and one output of embeddings; else None."""
    if len(file.inputs) != 1 or len(file.outputs) != 1:
        return None
    (image,), (output,) = file.inputs, file.outputs
    shape: Shape = image.shape or ()
    is_images = len(shape) == _MAP and shape[1] == len(_ZERO) and image.dtype in ("float32", "float16")
    if not is_images or output.shape is None or len(output.shape) != _FLAT:
        return None
    return _Look(image.name, (shape[2], shape[3]), output.name, output.shape[1], file)


def _size(look: _Look) -> tuple[int, int] | None:
    """Height and width that the input states, or ultralytics' metadata."""
    height, width = look.size
    if height and width:
        return height, width
    stated = re.fullmatch(r"\[(\d{1,5}), (\d{1,5})\]", look.file.metadata.get("imgsz", ""))
    return (int(stated[1]), int(stated[2])) if stated else None
