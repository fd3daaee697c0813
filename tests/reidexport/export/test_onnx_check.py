"""What a written ONNX file is refused for."""

import onnx
import pytest

from reidexport.errors import ExportError
from reidexport.export.onnx_check import check_structure


def test_leftover_norm_is_refused() -> None:
    """A BatchNormalization or Dropout that got into a graph is named, and stops the export."""
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [
                onnx.helper.make_node("Dropout", ["x"], ["y"]),
                onnx.helper.make_node("BatchNormalization", ["y", "s", "b", "m", "v"], ["z"]),
            ],
            "g", [], [],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
    )  # fmt: skip
    with pytest.raises(
        ExportError, match="the graph still holds BatchNormalization, Dropout, which inference must not"
    ):
        check_structure(model, 18)
    model.opset_import[0].version = 17
    with pytest.raises(ExportError, match="the exporter wrote opset 17, expected 18"):
        check_structure(model, 18)
