"""The manifest's JSON Schema, for runtimes in other languages.

The C++ runtime validates manifests with ``engines/manifest.schema.json``. After a change of ``manifest.py``::

    python -m reidruntime.artifact.schema > engines/manifest.schema.json
"""

import json
import sys
from typing import Any

from reidruntime.artifact.manifest import Manifest


def manifest_schema() -> dict[str, Any]:
    """The schema in draft 7, the newest that C++ validators read: a tuple is an array of ``items``."""
    schema = Manifest.model_json_schema(ref_template="#/definitions/{model}")
    definitions = schema.pop("$defs")
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **_draft7(schema),
        "definitions": _draft7(definitions),
    }


def schema_text() -> str:
    """The schema as it is committed."""
    return json.dumps(manifest_schema(), indent=2) + "\n"


def _draft7(part: Any) -> Any:
    if isinstance(part, dict):
        return {"items" if key == "prefixItems" else key: _draft7(value) for key, value in part.items()}
    return [_draft7(value) for value in part] if isinstance(part, list) else part


if __name__ == "__main__":
    sys.stdout.write(schema_text())
