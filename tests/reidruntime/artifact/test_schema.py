"""The JSON Schemas that the C++ runtime reads are those of the manifest and of camera profiles themselves."""

import pytest
from reidruntime.artifact.schema import FILES, schema_text

from tests import ROOT


@pytest.mark.parametrize("name", FILES)
def test_the_committed_schema_is_the_models_own(name: str) -> None:
    """engines/NAME.schema.json is what the model says now."""
    assert (ROOT / f"engines/{name}.schema.json").read_text() == schema_text(name), (
        f"run: python -m reidruntime.artifact.schema {name} > engines/{name}.schema.json"
    )
