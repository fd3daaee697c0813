"""The file that an engine is built from."""

from pathlib import Path

import pytest
from reidruntime.errors import InputError

from reidexport.tensorrt.source import find_source


def test_the_one_onnx_file_of_a_folder(tmp_path: Path) -> None:
    """None and several are errors; several are listed."""
    with pytest.raises(InputError, match=r"no \.onnx file here"):
        find_source(tmp_path)
    (tmp_path / "a.onnx").touch()
    assert find_source(tmp_path) == tmp_path / "a.onnx"
    (tmp_path / "b.onnx").touch()
    with pytest.raises(InputError, match=r"name one of them: a\.onnx, b\.onnx"):
        find_source(tmp_path)
