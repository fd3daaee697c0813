"""The file that an engine is built from."""

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper
from reidruntime import ImageInput, manifest_for_foreign_onnx
from reidruntime.errors import ArtifactError, InputError

from reidexport.tensorrt.source import find_source, prepared_source
from tests.standins.runtime_models import DIM, HEIGHT, WIDTH, write_artifact, write_foreign

IMAGES = ImageInput(height_px=HEIGHT, width_px=WIDTH, mean=(0, 0, 0), std=(1, 1, 1))


def test_the_one_onnx_file_of_a_folder(tmp_path: Path) -> None:
    """None and several are errors; several are listed."""
    with pytest.raises(InputError, match=r"no \.onnx file here"):
        find_source(tmp_path)
    (tmp_path / "a.onnx").touch()
    assert find_source(tmp_path) == tmp_path / "a.onnx"
    (tmp_path / "b.onnx").touch()
    with pytest.raises(InputError, match=r"name one of them: a\.onnx, b\.onnx"):
        find_source(tmp_path)


@pytest.mark.parametrize("precision", [None, "fp16"])
def test_only_the_embedding_goes_into_an_engine(tmp_path: Path, precision: Any) -> None:
    """Of a file with two outputs the one that was named is kept, with the nodes that it needs, in either precision."""
    path = write_foreign(
        tmp_path / "f.onnx", None, [("positive", ["batch", DIM, 16, 8]), ("f_i", ["batch", DIM])]
    )
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Relu", ["f_i"], ["more"]))
    model.graph.output.append(helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, ["batch", DIM]))
    onnx.save(model, path)
    manifest = manifest_for_foreign_onnx(path, IMAGES, output_name="f_i")
    with prepared_source(path, precision, manifest=manifest) as source:
        prepared = onnx.load(source.path)
        assert [output.name for output in prepared.graph.output] == ["f_i"]
        assert "more" not in {name for node in prepared.graph.node for name in node.output}
        assert (source.name, source.kept) == ("f.onnx", False)
    assert len(onnx.load(path).graph.output) == 3


def test_what_cannot_be_opened_is_not_built(tmp_path: Path) -> None:
    """A file without a manifest that mixes the images of a batch is refused before TensorRT sees it."""
    path = write_foreign(tmp_path / "f.onnx", None, [("out", ["batch", DIM])])
    model = onnx.load(path)
    mean = helper.make_node("ReduceMean", ["f_i"], ["m"], axes=[0])
    model.graph.node.extend([mean, helper.make_node("Sub", ["f_i", "m"], ["out"])])
    model.opset_import[0].version = 13
    onnx.save(model, path)
    manifest = manifest_for_foreign_onnx(path, IMAGES)
    with (
        pytest.raises(ArtifactError, match="in a batch otherwise than alone"),
        prepared_source(path, None, manifest=manifest),
    ):
        pass


def test_missing_weights_are_named(tmp_path: Path) -> None:
    """An artifact whose weights were left behind is refused with the file that is wanted."""
    path = write_artifact(tmp_path / "a.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="a.data", size_threshold=0)
    (tmp_path / "a.data").unlink()
    with (
        pytest.raises(ArtifactError, match=rf"{tmp_path / 'a.data'}, which is missing"),
        prepared_source(path, None),
    ):
        pass
