"""Triton: features of a network in, the same standardized by the cameras of their images out."""

from pathlib import Path
from typing import Any, cast

import numpy as np

from reidruntime.artifact.camera_profile import Standardizer, UnknownCamera, profile_from_json
from reidruntime.errors import InputError
from reidruntime.triton import CAMID_INPUT, PROFILE_FILE, model_facts
from reidruntime.triton.messages import answer, refusal, values


class TritonPythonModel:
    """Requests of features and, where the profile has cameras, of a camid for each; as a session answers them."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the profile that lies beside the model's code."""
        self._facts = model_facts(args)
        path = Path(args["model_repository"], args["model_version"], PROFILE_FILE)
        profile = profile_from_json(path.read_bytes(), str(path))
        unknown = cast(UnknownCamera, self._facts.parameters["unknown_camera"])
        self._has_cameras = bool(profile.cameras)
        self._standardizer = Standardizer(profile, unknown, unit_length=self._facts.manifest.normalized)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request with its features, or refuse it for an image of an unknown camera."""
        return [self._response(request) for request in requests]

    def _response(self, request: Any) -> Any:
        features = values(request, self._facts.input_name)
        rows = features.reshape(len(features), -1).astype(np.float32, copy=False)
        camids = values(request, CAMID_INPUT).ravel() if self._has_cameras else np.full(len(rows), -1)
        try:
            places = self._standardizer.places(camids, lambda index: f"Image {index}")
        except InputError as error:
            return refusal(error)
        return answer(self._facts.output_name, self._standardizer(rows, places))
