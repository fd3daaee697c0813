"""The manifest's text and hash."""

import hashlib
import json

from reidruntime.artifact.manifest import manifest_from_json

from tests.standins.runtime_models import small_manifest


def test_a_manifest_of_an_earlier_version_keeps_its_hash() -> None:
    """Fields that came later are left out where they are empty: files of embeddings know an artifact by its hash."""
    content = json.loads(small_manifest().to_json())
    later = {"origins", "stem_pool", "gem_p", "batch_norm_eps", "weights"}
    assert not later & (content.keys() | content["architecture"].keys() | content["source"].keys())
    text = json.dumps(content, separators=(",", ":"))
    assert manifest_from_json(text, "here").sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_later_fields_are_kept_where_they_say_something() -> None:
    """A manifest that states them comes back with them."""
    told = small_manifest().model_copy(
        update={
            "origins": {"stem_pool": "told"},
            "architecture": small_manifest().architecture.model_copy(
                update={"stem_pool": "2x2", "gem_p": 3.0}
            ),
        }
    )
    assert manifest_from_json(told.to_json(), "here") == told
