"""Models for the Python backend of Triton Inference Server.

A model repository written by ``reidexport`` holds a ``model.py`` that imports one of them: this package, with numpy,
pillow and pydantic, has to be installed in the Python of the server.
"""

import json
from dataclasses import dataclass

from reidruntime.artifact.manifest import METADATA_KEY, Manifest, manifest_from_json
from reidruntime.errors import ArtifactError

CAMID_INPUT = "camid"  # the number of each image's camera, from 0
PROFILE_FILE = "cameras.json"


@dataclass(frozen=True)
class ModelFacts:
    """What a model's configuration says: its tensors' names, its parameters, and the manifest among them."""

    input_name: str
    output_name: str
    parameters: dict[str, str]
    manifest: Manifest


def model_facts(args: dict[str, str]) -> ModelFacts:
    """The facts in what ``initialize`` gets; raises ArtifactError where the manifest is missing or invalid."""
    config = json.loads(args["model_config"])
    parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
    origin = f"{config['name']}/config.pbtxt"
    if METADATA_KEY not in parameters:
        raise ArtifactError(f"{origin}: the parameter {METADATA_KEY} is missing. Write the repository again.")
    manifest = manifest_from_json(parameters[METADATA_KEY], origin)
    return ModelFacts(config["input"][0]["name"], config["output"][0]["name"], parameters, manifest)
