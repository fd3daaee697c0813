"""What the tests of embedding share."""

from pathlib import Path

import pytest

from tests.standins.runtime_models import write_artifact


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A small network."""
    return write_artifact(tmp_path / "a.onnx")
