"""JSON Schemas of the manifest and of camera profiles, for runtimes in other languages.

The C++ runtime validates both with the committed files. After a change of ``manifest.py`` or ``camera_profile.py``::

    python -m reidruntime.artifact.schema manifest > engines/manifest.schema.json
    python -m reidruntime.artifact.schema cameras > engines/cameras.schema.json
"""

import json
import sys
from typing import Final

from reidruntime.artifact.camera_profile import CameraProfile
from reidruntime.artifact.manifest import FrozenModel, Manifest

FILES: Final[dict[str, type[FrozenModel]]] = {"manifest": Manifest, "cameras": CameraProfile}


def schema_text(name: str) -> str:
    """One of ``FILES`` in draft 7, the newest that C++ validators read: a tuple is an array of ``items``."""
    schema = FILES[name].model_json_schema(ref_template="#/definitions/{model}")
    definitions = schema.pop("$defs")
    draft7 = {"$schema": "http://json-schema.org/draft-07/schema#", **schema, "definitions": definitions}
    return json.dumps(draft7, indent=2).replace('"prefixItems":', '"items":') + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text(sys.argv[1]))
