"""Opening and inspecting whatever file a command was given."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from reidruntime import SessionOptions
from torch import nn

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.checkpoint.loading import Checkpoint, load_checkpoint
from reidexport.data.synthetic import draw_people
from reidexport.embed.files import write_embeddings
from reidexport.errors import ArtifactError, CheckpointError, InputError
from reidexport.evaluation.inspection import inspect_file
from reidexport.evaluation.opening import open_any, open_reference
from reidexport.evaluation.torch_session import session_from_checkpoint
from reidexport.export.graph import graph_from_checkpoint, manifest_of_graph
from reidexport.records.inspection import CheckpointDescription, GalleryDescription, OnnxDescription
from tests.conftest import Exported
from tests.standins.checkpoints import golden_weights, lost_classes
from tests.standins.runtime_models import write_artifact


def test_checkpoint_and_artifact_open_alike(exported: Exported) -> None:
    """A checkpoint and its export give the same features through the same call."""
    people = draw_people(4)
    with open_any(exported.checkpoint) as torch_session, open_any(exported.onnx) as onnx_session:
        np.testing.assert_allclose(
            torch_session.embed(people), onnx_session.embed(people), rtol=1e-3, atol=1e-4
        )
        assert torch_session.backend == "torch"
        assert torch_session.description.startswith("torch ")


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    """A wrong path is an ArtifactError that names it."""
    with pytest.raises(ArtifactError, match=r"nowhere\.onnx: there is no such file"):
        open_any(tmp_path / "nowhere.onnx")


def test_options_of_the_other_kind_are_refused(exported: Exported) -> None:
    """Artifact options for a checkpoint, and checkpoint options for an artifact, are input errors."""
    with pytest.raises(InputError, match="is a checkpoint and runs in torch"):
        open_any(exported.checkpoint, SessionOptions(backend="openvino"))
    with pytest.raises(InputError, match="what is chosen for a checkpoint is built in"):
        open_any(exported.onnx, choices=CheckpointChoices(last_stride=1))
    with pytest.raises(
        InputError, match="emits f_i, not f_t: export the checkpoint again with --feature f_t"
    ):
        open_any(exported.onnx, feature="f_t")


def test_the_reference_is_opened_with_the_weights_of_the_artifact(tmp_path: Path) -> None:
    """An artifact of the raw weights beside an EMA's is compared with those, and not with the average."""
    weights = golden_weights("sb_resnet18")
    path = tmp_path / "model.pth"
    averaged = {key: tensor * 1.5 if "layer4.1.bn2" in key else tensor for key, tensor in weights.items()}
    torch.save({"model": weights, "model_ema": averaged}, path)
    people = draw_people(2)
    rows = {}
    for key in ("model", "model_ema"):
        checkpoint = load_checkpoint(path, CheckpointChoices(weights=key))
        manifest = manifest_of_graph(graph_from_checkpoint(checkpoint))
        assert manifest.source.weights == key
        with session_from_checkpoint(checkpoint) as told, open_reference(path, manifest) as reference:
            rows[key] = told.embed(people)
            np.testing.assert_allclose(reference.embed(people), rows[key], rtol=1e-4, atol=1e-4)
    assert not np.allclose(rows["model"], rows["model_ema"], rtol=1e-2)


def test_what_was_told_at_the_export_need_not_be_told_again(tmp_path: Path) -> None:
    """A module whose pooling had to be told is opened as its artifact says, and its facts keep where they come from."""
    path = tmp_path / "model.pth"
    with lost_classes() as model_class:
        model = model_class(18, 1, stem_relu=True)
        model.gap = nn.AdaptiveAvgPool2d((2, 1))
        torch.save(model, path)
    with pytest.raises(CheckpointError, match=r"its module has a global pooling to \(2, 1\)"):
        load_checkpoint(path)
    checkpoint = load_checkpoint(path, CheckpointChoices(pooling="avg", size=(64, 32)))
    manifest = manifest_of_graph(graph_from_checkpoint(checkpoint))
    found: list[Checkpoint] = []
    open_reference(path, manifest, on_checkpoint=found.append).close()
    assert found[0].origins == checkpoint.origins
    assert (found[0].origins["pooling"], found[0].origins["last_stride"]) == ("told", "read")


def test_inspect_describes_a_checkpoint(exported: Exported) -> None:
    """The description names family, backbone, neck, feature length and classes."""
    found = inspect_file(exported.checkpoint)
    assert isinstance(found, CheckpointDescription)
    assert found.kind == "checkpoint"
    assert found.family == "reidexport"
    network = [found.architecture[name] for name in ("backbone", "neck", "feature_dim")]
    assert network == ["resnet18", "bnneck", 512]
    assert found.architecture["num_classes"] == 4
    assert found.assumed == ()
    assert len(found.sha256) == 64


def test_inspect_describes_an_onnx_file(exported: Exported) -> None:
    """The description holds opset, inputs, outputs, operators and the manifest."""
    found = inspect_file(exported.onnx)
    assert isinstance(found, OnnxDescription)
    assert found.kind == "onnx"
    assert found.opset == 18
    assert found.inputs == ("images: uint8 [batch, 64, 32, 3]",)
    assert found.outputs == ("f_i: float [batch, 512]",)
    assert "BatchNormalization" not in found.operators
    assert found.manifest is not None and found.manifest.architecture.backbone == "resnet18"


def test_inspect_names_what_an_onnx_file_would_be_refused_for(tmp_path: Path) -> None:
    """Weights left behind and training mode are part of the description; of a sound file there is nothing to say."""
    path = write_artifact(tmp_path / "a.onnx")
    sound = inspect_file(path)
    assert isinstance(sound, OnnxDescription) and sound.problems == ()
    model = onnx.load(path)
    model.graph.node.append(onnx.helper.make_node("Dropout", ["f_i", "", "true"], ["y"], name="drop"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "true"))
    onnx.save(model, path, save_as_external_data=True, location="a.data", size_threshold=100)
    (tmp_path / "a.data").unlink()
    found = inspect_file(path)
    assert isinstance(found, OnnxDescription)
    external, training = found.problems
    assert f"{tmp_path / 'a.data'}, which is missing" in external
    assert "exported in training mode: Dropout 'drop'" in training


def test_inspect_describes_an_engine_by_its_manifest(exported: Exported, tmp_path: Path) -> None:
    """An engine is described by the manifest beside it, and without one by none."""
    engine = tmp_path / "small.engine"
    engine.write_bytes(b"ptrt" + bytes(100))
    assert inspect_file(engine).manifest is None
    with open_any(exported.onnx) as session:
        (tmp_path / "small.engine.json").write_text(session.manifest.to_json())
    assert inspect_file(engine).manifest.precision == "fp32"


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".gallery"])
def test_inspect_describes_embeddings(suffix: str, exported: Exported, tmp_path: Path) -> None:
    """Embeddings are described alike in every format: rows, dimension, persons, cameras, and whose they are."""
    path = tmp_path / f"people{suffix}"
    names = ["0001_c1s1_000151_00.jpg", "0002_c3s1_000151_00.jpg", "0000_c1s1_000151_00.jpg", "holiday.jpg"]
    with open_any(exported.onnx) as session:
        manifest = session.manifest
    write_embeddings(path, names, [np.ones((4, 512), np.float32)], manifest)
    found = inspect_file(path)
    assert isinstance(found, GalleryDescription)
    assert (found.kind, found.num_rows, found.dim, found.metric) == ("gallery", 4, 512, manifest.metric)
    assert (found.num_persons, found.num_cameras, found.num_unnamed, found.num_timed) == (2, 2, 1, 3)
    assert found.manifest_sha256 == manifest.sha256


def test_inspect_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    """A text file is no checkpoint, a damaged ONNX file no ONNX file."""
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        inspect_file(text)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x0a\x3a\xff\xff\xff\x7f")
    with pytest.raises(ArtifactError, match=r"broken\.onnx"):
        inspect_file(broken)
