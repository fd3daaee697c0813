"""The manifest's JSON Schema, for runtimes in other languages.

The C++ runtime validates manifests with ``engines/manifest.schema.json``. After a change of ``manifest.py``::

    python -m reidruntime.artifact.schema > engines/manifest.schema.json
"""

import json
import sys

from reidruntime.artifact.manifest import Manifest


def schema_text() -> str:
    """The schema in draft 7, the newest that C++ validators read: a tuple is an array of ``items``."""
    schema = Manifest.model_json_schema(ref_template="#/definitions/{model}")
    definitions = schema.pop("$defs")
    draft7 = {"$schema": "http://json-schema.org/draft-07/schema#", **schema, "definitions": definitions}
    return json.dumps(draft7, indent=2).replace('"prefixItems":', '"items":') + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
