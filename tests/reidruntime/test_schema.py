"""The JSON Schema that the C++ runtime reads is the manifest's own."""

from pathlib import Path

from reidruntime.schema import schema_text

COMMITTED = Path(__file__).parents[2] / "engines/manifest.schema.json"


def test_the_committed_schema_is_the_manifests_own() -> None:
    """engines/manifest.schema.json is what manifest.py says now."""
    assert COMMITTED.read_text() == schema_text(), (
        "run: python -m reidruntime.schema > engines/manifest.schema.json"
    )
