"""Models for the Python backend of Triton Inference Server.

A model repository written by ``reidexport`` holds a ``model.py`` that imports one of them: this package, with numpy,
pillow and pydantic, has to be installed in the Python of the server.
"""

import json
from typing import Any

from reidruntime.artifact.manifest import METADATA_KEY, Manifest, manifest_from_json
from reidruntime.errors import ArtifactError

Parameters = dict[str, str]


def parameters_of(config: dict[str, Any]) -> Parameters:
    """The parameters of a model's configuration, as Triton hands it over."""
    return {key: value["string_value"] for key, value in config["parameters"].items()}


def config_of(args: dict[str, str]) -> dict[str, Any]:
    """The configuration in what ``initialize`` gets."""
    config: dict[str, Any] = json.loads(args["model_config"])
    return config


def manifest_of(config: dict[str, Any]) -> Manifest:
    """The manifest among a model's parameters; raises ArtifactError where it is missing or invalid."""
    origin = f"{config['name']}/config.pbtxt"
    text = parameters_of(config).get(METADATA_KEY)
    if text is None:
        raise ArtifactError(f"{origin}: the parameter {METADATA_KEY} is missing. Write the repository again.")
    return manifest_from_json(text, origin)
