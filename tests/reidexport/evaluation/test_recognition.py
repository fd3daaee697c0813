"""ONNX files of other projects: what each is recognized by, and what is then known of its images."""

from pathlib import Path
from typing import Any

import pytest
from reidruntime.artifact.onnx_metadata import read_onnx

from reidexport.evaluation.recognition import Recognized, recognize
from tests.standins.runtime_models import DIM, write_artifact, write_export, write_foreign

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FAST_REID = (("Sub", (123.675, 116.28, 103.53)), ("Div", (58.395, 57.12, 57.375)))
# As ultralytics' exporter writes them; no file of its ReID encoders could be looked at.
ULTRALYTICS = {
    "description": "Ultralytics YOLO26n-reid model",
    "author": "Ultralytics",
    "version": "8.4.190",
    "task": "reid",
    "stride": "32",
    "batch": "1",
    "imgsz": "[448, 448]",
    "names": "{0: 'person', 1: 'other'}",
}


def found(path: Path) -> Recognized | None:
    """What a file is taken for."""
    return recognize(read_onnx(path))


@pytest.mark.parametrize(
    ("export", "project", "facts", "read"),
    [
        (
            {"image": "images", "output": "output0", "size": (448, 448), "metadata": ULTRALYTICS},
            "ultralytics",
            {"size": (448, 448), "mean": (0, 0, 0), "std": (1, 1, 1), "resize": "bilinear"},
            {"size", "layout"},
        ),
        (
            {"image": "images", "output": "output0", "size": ("height", "width"), "metadata": ULTRALYTICS},
            "ultralytics",
            {"size": (448, 448)},
            {"size", "layout"},
        ),
        (
            {"image": "input", "output": "fc_pred", "size": (256, 128), "dim": "embedding_size"},
            "NVIDIA TAO (ResNet)",
            {"mean": IMAGENET[0], "std": (0.226, 0.226, 0.226), "resize": "bilinear"},
            {"size", "layout"},
        ),
        (
            {"image": "input", "output": "fc_pred", "size": (256, 128), "with_softmax": True},
            "NVIDIA TAO (Swin)",
            {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
            {"size", "layout"},
        ),
        (
            {"image": "images", "output": "output0", "size": (384, 128)},
            "boxmot",
            {"mean": IMAGENET[0], "std": IMAGENET[1], "size": (384, 128)},
            {"size", "layout"},
        ),
        (
            {"image": "images", "output": "output", "size": (256, 128)},
            "torchreid and boxmot",
            {"mean": IMAGENET[0], "std": IMAGENET[1]},
            {"size", "layout"},
        ),
        (
            {"image": "input.1", "output": "1234", "size": (384, 128), "start": FAST_REID},
            "fast-reid",
            {"mean": (0, 0, 0), "std": (1 / 255,) * 3, "resize": "bicubic", "channel_order": "RGB"},
            {"size", "layout", "mean", "std", "channel_order"},
        ),
        (
            {"image": "x", "output": "y", "size": (256, 128), "start": (("Sub", (127.5,) * 3), ("Div", (127.5,) * 3))},
            "fast-reid",
            {"mean": (0, 0, 0), "std": (1 / 255,) * 3, "channel_order": "RGB"},
            {"size", "layout", "mean", "std"},
        ),
        (
            {"image": "data", "output": "reid_embedding", "size": (256, 128)},
            "deep-object-reid",
            {"mean": IMAGENET[0], "std": IMAGENET[1], "channel_order": "RGB"},
            {"size", "layout"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_projects_are_recognized(
    tmp_path: Path, export: dict[str, Any], project: str, facts: dict[str, Any], read: set[str]
) -> None:
    """By metadata, names, shapes and first layers; what those tell is read, the rest is assumed."""
    recognized = found(write_export(tmp_path / "renamed.bin", **export))
    assert recognized is not None
    assert recognized.project == project
    assert {name: recognized.facts[name] for name in facts} == facts
    assert recognized.facts.keys() == {"size", "mean", "std", "channel_order", "layout", "resize"}
    assert set(recognized.read) == read
    assert {name for name, origin in recognized.origins(()).items() if origin == "read"} == read


@pytest.mark.parametrize(
    "export",
    [
        {"image": "images", "output": "output0", "size": (640, 640)},
        {"image": "images", "output": "output0", "size": (256, 128), "start": (("Div", (255.0,)),)},
        {"image": "images", "output": "features", "size": (256, 128)},
        {"image": "input", "output": "output", "size": (256, 128)},
        {"image": "x", "output": "y", "size": (256, 128), "start": (("Sub", (0.4,) * 3), ("Div", (0.2,) * 3))},
        {"image": "x", "output": "y", "size": (256, 128), "start": (("Sub", (123.0,)), ("Div", (58.0,)))},
        {
            "image": "images",
            "output": "output0",
            "size": (224, 224),
            "metadata": {**ULTRALYTICS, "task": "classify", "names": str({i: f"n{i}" for i in range(DIM)})},
        },
    ],
    ids=["size", "in-the-network", "output", "input", "of-zero-to-one", "gray", "classifier"],
)  # fmt: skip
def test_others_are_not(tmp_path: Path, export: dict[str, Any]) -> None:
    """Names that many exporters use, other arithmetic, and classifiers, which have the form of encoders."""
    assert found(write_export(tmp_path / "yolo26n-reid.onnx", **export)) is None


def test_several_outputs_maps_and_own_files_are_not(tmp_path: Path) -> None:
    """What cannot be one batch of embeddings of one batch of images in floats."""
    both: Any = [("output0", ["batch", DIM]), ("output1", ["batch", DIM])]
    assert found(write_foreign(tmp_path / "two.onnx", None, both)) is None
    assert found(write_foreign(tmp_path / "map.onnx", None, [("output0", ["batch", DIM, 16, 8])])) is None
    assert found(write_artifact(tmp_path / "own.onnx")) is None


def test_facts_in_words_name_their_options(tmp_path: Path) -> None:
    """One line for what was read, one for each assumption; nothing of what was told."""
    recognized = found(write_export(tmp_path / "a.onnx", "input", "fc_pred", (256, 128)))
    assert recognized is not None
    assert recognized.lines(("std",)) == [
        "read: NCHW layout, input 256x128 px",
        "assumed: RGB channels (as in NVIDIA TAO (ResNet)'s exports; set with --channel-order)",
        "assumed: mean 0.485, 0.456, 0.406 (as in NVIDIA TAO (ResNet)'s exports; set with --mean)",
        "assumed: bilinear resizing (as in NVIDIA TAO (ResNet)'s exports; set with --resize)",
    ]
    assert recognized.origins(("std",))["std"] == "told"
