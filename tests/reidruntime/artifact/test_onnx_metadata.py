"""Reading an ONNX file without the onnx package."""

from pathlib import Path

import onnx
import pytest
from reidruntime.artifact.onnx_metadata import manifest_from_onnx, read_onnx, shape_text
from reidruntime.errors import ArtifactError

from tests.standins.runtime_models import (
    DIM,
    HEIGHT,
    WIDTH,
    small_manifest,
    write_artifact,
    write_export,
    write_foreign,
)


def test_manifest_comes_back(tmp_path: Path) -> None:
    """What was written into metadata_props is read back whole."""
    path = write_artifact(tmp_path / "a.onnx")
    assert manifest_from_onnx(path) == manifest_from_onnx(str(path)) == small_manifest()
    assert list(read_onnx(path).metadata) == ["reidexport.manifest"]


def test_inputs_and_outputs_without_the_weights(tmp_path: Path) -> None:
    """Names, dtypes and shapes are those of the file; dynamic and unstated sizes are None."""
    file = read_onnx(write_foreign(tmp_path / "a.onnx", 4, [("f_i", None)]))
    assert [(t.name, t.dtype, t.shape) for t in file.inputs] == [("planes", "float32", (4, 3, HEIGHT, WIDTH))]
    assert file.outputs[0].shape is None
    assert file.producer == ("other", "")
    assert read_onnx(write_artifact(tmp_path / "b.onnx")).outputs[0].shape == (None, DIM)


def test_a_file_of_another_program_has_no_manifest(tmp_path: Path) -> None:
    """A foreign ONNX file is readable and gives None."""
    assert manifest_from_onnx(write_foreign(tmp_path / "a.onnx")) is None


@pytest.mark.parametrize("length", [1, 50, 400, 900])
def test_a_cut_file_is_refused(tmp_path: Path, length: int) -> None:
    """The first bytes of a model are not a model."""
    whole = write_artifact(tmp_path / "a.onnx").read_bytes()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(whole[:length])
    with pytest.raises(ArtifactError, match=r"cut.onnx: not an ONNX model, or not all of it"):
        read_onnx(cut)


@pytest.mark.parametrize(
    "content", [b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04", b"\xff" * 40]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    """Text, archives and noise are not taken for a model."""
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="not an ONNX model"):
        read_onnx(path)


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9", b'@\x00\x00\x00\x00\x00\x00\x00{"a": 1}']
)
def test_a_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    """A checkpoint in place of its export is called that, and not a damaged export."""
    path = tmp_path / "model.pth"
    path.write_bytes(content + bytes(99))
    with pytest.raises(ArtifactError) as raised:
        read_onnx(path)
    assert str(raised.value).endswith(
        f"model.pth: this is a checkpoint, not an ONNX model. Export it first: reidexport onnx {path}"
    )


def test_empty_and_missing_files_are_refused(tmp_path: Path) -> None:
    """Both say what is wrong with the file."""
    (tmp_path / "a.onnx").touch()
    with pytest.raises(ArtifactError, match="the file is empty"):
        read_onnx(tmp_path / "a.onnx")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_onnx(tmp_path / "b.onnx")


def test_shapes_read_well() -> None:
    """Only the first dimension is called batch."""
    assert shape_text((None, 3, None)) == "[batch, 3, ?]"
    assert shape_text(None) == "of unknown shape"


def test_what_is_first_done_to_images(tmp_path: Path) -> None:
    """Arithmetic by one number or one per channel, up to the first other operator; the kinds of all operators."""
    steps = (("Div", (255.0,)), ("Sub", (0.5, 0.25, 0.125)), ("Mul", (2.0, 2.0, 2.0)))
    file = read_onnx(write_export(tmp_path / "a.onnx", "images", "y", (HEIGHT, WIDTH), start=steps))
    assert file.start == steps
    assert file.operators == {"Div", "Sub", "Mul", "Identity", "Conv", "Relu", "GlobalAveragePool", "Flatten"}
    assert read_onnx(write_foreign(tmp_path / "b.onnx")).start == ()


def test_numbers_in_constant_nodes_are_seen_and_others_end_the_search(tmp_path: Path) -> None:
    """A Constant node counts as an initializer; two numbers, or what is divided by the image, do not."""
    path = write_export(
        tmp_path / "a.onnx", "images", "y", (HEIGHT, WIDTH), start=(("Sub", (2.0,)), ("Div", (4.0,)))
    )
    model = onnx.load(path)
    (kept,) = [each for each in model.graph.initializer if each.name == "constant0"]
    model.graph.initializer.remove(kept)
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["constant0"], value=kept))
    onnx.save(model, path)
    assert read_onnx(path).start == (("Sub", (2.0,)), ("Div", (4.0,)))
    (division,) = [node for node in model.graph.node if node.op_type == "Div"]
    division.input[:] = reversed(division.input)
    onnx.save(model, path)
    assert read_onnx(path).start == (("Sub", (2.0,)),)
