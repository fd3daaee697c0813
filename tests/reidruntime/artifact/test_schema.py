"""The JSON Schema that the C++ runtime reads is the manifest's own."""

from reidruntime.artifact.schema import schema_text

from tests import ROOT

COMMITTED = ROOT / "engines/manifest.schema.json"


def test_the_committed_schema_is_the_manifests_own() -> None:
    """engines/manifest.schema.json is what manifest.py says now."""
    assert COMMITTED.read_text() == schema_text(), (
        "run: python -m reidruntime.artifact.schema > engines/manifest.schema.json"
    )
