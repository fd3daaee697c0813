"""Writing an ONNX file: what it carries, and what a failure leaves behind. Its answers: tests/golden/test_golden.py."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from reidruntime.artifact.manifest import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    METADATA_KEY,
    Preprocess,
    manifest_from_json,
)

from reidexport.checkpoint.loading import load_checkpoint, save_checkpoint
from reidexport.errors import InputError, ParityError
from reidexport.export import onnx_check
from reidexport.export.graph import GraphOptions, InferenceGraph, graph_from_checkpoint
from reidexport.export.onnx_export import onnx_from_graph
from reidexport.export.opsets import LATEST, OLDEST
from reidexport.models.baseline import BaselineArchitecture
from tests.standins import checkpoints


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> InferenceGraph:
    """A ResNet-18 with BNNeck for images of 64x32 px."""
    path = tmp_path_factory.mktemp("checkpoint") / "small.pth"
    model = checkpoints.drawn_model(
        BaselineArchitecture("resnet18", last_stride=1, feature_dim=512, num_classes=5)
    )
    preprocess = Preprocess(height_px=64, width_px=32, mean=IMAGENET_MEAN, std=IMAGENET_STD, in_graph=True)
    save_checkpoint(path, model, preprocess)
    return graph_from_checkpoint(load_checkpoint(path), GraphOptions())


def test_manifest_travels_in_the_file(graph: InferenceGraph, tmp_path: Path) -> None:
    """The file's metadata holds the manifest that was returned, and it says what the graph is."""
    path = tmp_path / "model.onnx"
    manifest = onnx_from_graph(graph, path)
    model = onnx.load(path)
    assert [entry.key for entry in model.metadata_props] == [METADATA_KEY]
    assert manifest_from_json(model.metadata_props[0].value, str(path)) == manifest
    assert (model.producer_name, model.producer_version) == ("reidexport", manifest.producer.version)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 18}
    assert (manifest.source.name, manifest.source.sha256) == ("small.pth", graph.checkpoint.sha256)
    assert (manifest.architecture.backbone, manifest.architecture.feature_dim) == ("resnet18", 512)
    assert (manifest.input.dtype, manifest.input.shape) == ("uint8", (None, 64, 32, 3))
    assert (manifest.output.name, manifest.output.shape) == ("f_i", (None, 512))
    assert (manifest.batch_profile.minimum, manifest.batch_profile.maximum) == (1, None)
    assert manifest.preprocess.in_graph
    assert set(manifest.layer_precisions) == {"fp32"}
    assert manifest.parity is not None
    assert manifest.parity.reference == "small.pth"
    assert manifest.parity.max_relative_l2 < 1e-4
    assert manifest.parity.min_cosine > 0.999999
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("opset", [OLDEST, LATEST])
def test_other_opsets_are_checked_as_the_default_is(
    opset: int, precision: Any, graph: InferenceGraph, tmp_path: Path
) -> None:
    """The ends of the range are written as asked for, and answer as torch does."""
    manifest = onnx_from_graph(graph, tmp_path / "model.onnx", precision=precision, opset=opset)
    assert {entry.domain: entry.version for entry in onnx.load(tmp_path / "model.onnx").opset_import} == {
        "": opset
    }
    assert manifest.parity is not None
    assert manifest.parity.max_relative_l2 < (1e-4 if precision == "fp32" else 2e-2)


def test_static_batch_is_in_the_manifest(graph: InferenceGraph, tmp_path: Path) -> None:
    """A file for one batch size says so, and was compared at that size alone."""
    manifest = onnx_from_graph(graph, tmp_path / "model.onnx", batch=3)
    assert (manifest.input.shape, manifest.output.shape) == ((3, 64, 32, 3), (3, 512))
    assert manifest.batch_profile.static == 3
    assert manifest.parity is not None
    assert manifest.parity.num_images == 3


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_nothing_of_this_machine_is_in_the_file(
    precision: str, graph: InferenceGraph, tmp_path: Path
) -> None:
    """No path, stack trace, classifier or training leftover of the exporting machine gets into the file."""
    path = tmp_path / "model.onnx"
    onnx_from_graph(graph, path, precision=precision)  # type: ignore[arg-type]
    data = path.read_bytes()
    for trace in (
        b"/site-packages/",
        b'File "',
        str(tmp_path).encode(),
        str(Path.cwd()).encode(),
        str(Path.home()).encode(),
    ):
        assert trace not in data
    model = onnx.load(path)
    assert not [tensor.name for tensor in model.graph.initializer if "classifier" in tensor.name]
    assert not [node for node in model.graph.node if node.metadata_props or node.doc_string]
    assert not model.functions


def test_old_file_is_replaced(graph: InferenceGraph, tmp_path: Path) -> None:
    """A second export overwrites the first."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    onnx_from_graph(graph, path, batch=1)
    onnx.checker.check_model(str(path), full_check=True)


@pytest.mark.parametrize("old", [None, b"the old file"])
def test_failed_parity_writes_nothing(
    old: bytes | None, graph: InferenceGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is off by more than the tolerance never gets its name; the old one stays; the exit status is 1."""
    path = tmp_path / "model.onnx"
    if old is not None:
        path.write_bytes(old)
    monkeypatch.setitem(onnx_check.TOLERANCE, "fp16", 0.0)
    with pytest.raises(
        ParityError, match=r"at batch 1 the file is off by a relative L2 error of .*e-0\d, allowed 0e"
    ) as raised:
        onnx_from_graph(graph, path, precision="fp16")
    assert raised.value.exit_status == 1
    assert "nothing was written" in str(raised.value)
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == ([] if old is None else [old])


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (3e38, "at batch 1 the file is off by a relative L2 error of inf"),
        (0.0, "answers an image with zeros, which nothing can be compared with"),
    ],
)
def test_features_that_cannot_be_compared_fail_the_check(
    graph: InferenceGraph, tmp_path: Path, weight: float, message: str
) -> None:
    """Weights that overflow, or that make every feature zero, stop the export."""
    broken = graph_from_checkpoint(
        replace(
            graph.checkpoint,
            state_dict={
                key: torch.full_like(value, weight) if key.startswith("neck.") else value
                for key, value in graph.checkpoint.state_dict.items()
            },
        )
    )
    with pytest.raises(ParityError, match=message):
        onnx_from_graph(broken, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("batch", [0, -3])
def test_bad_batch(batch: int, graph: InferenceGraph, tmp_path: Path) -> None:
    """A batch size that is not positive is refused before anything is written."""
    with pytest.raises(InputError, match=f"batch must be 'dynamic' or at least 1, got {batch}"):
        onnx_from_graph(graph, tmp_path / "model.onnx", batch=batch)
    assert list(tmp_path.iterdir()) == []


def test_missing_folder(graph: InferenceGraph, tmp_path: Path) -> None:
    """A folder that is not there is named at once, before the seconds that an export takes."""
    with pytest.raises(
        InputError, match=r"nowhere/model\.onnx: cannot write there \(No such file or directory\)"
    ):
        onnx_from_graph(graph, tmp_path / "nowhere" / "model.onnx")
