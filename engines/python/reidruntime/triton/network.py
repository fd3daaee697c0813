"""Triton: pixels in, embeddings out, by a session of this package."""

from typing import Any, cast

import numpy as np

from reidruntime.artifact.camera_profile import UnknownCamera
from reidruntime.backends import BackendName, DeviceName
from reidruntime.errors import InputError, ReidExportError
from reidruntime.session import SessionOptions, open_session
from reidruntime.triton import CAMID_INPUT, model_facts
from reidruntime.triton.messages import answer, failure, refusal, values


class TritonPythonModel:
    """Requests of uint8 images, shape (N, height, width, 3), answered together in one run of the network.

    With a profile of cameras each image has its camid, shape (N, 1).
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Open the artifact and the camera profile that the parameters name, with the options that they state."""
        self._facts = model_facts(args)
        parameters = self._facts.parameters
        options = SessionOptions(
            cast(BackendName, parameters["backend"]),
            cast(DeviceName, parameters["device"]),
            int(parameters["threads"]),
            unknown_camera=cast(UnknownCamera, parameters["unknown_camera"]),
        )
        self._session = open_session(
            parameters["artifact"],
            options,
            manifest=self._facts.manifest,
            cameras=parameters.get("cameras"),
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer all requests of a batch but those with an image of an unknown camera, which are refused."""
        refusals = [self._refusal(request) for request in requests]
        accepted = [request for request, refused in zip(requests, refusals, strict=True) if refused is None]
        answers = iter(self._answers(accepted) if accepted else ())
        return [next(answers) if refused is None else refused for refused in refusals]

    def finalize(self) -> None:
        """Close the session."""
        self._session.close()

    def _camids(self, request: Any) -> list[int]:
        """Of the request's images; none where there are no cameras to tell apart."""
        return values(request, CAMID_INPUT).ravel().tolist() if self._session.camids else []

    def _refusal(self, request: Any) -> Any:
        """The response to a request with an image of an unknown camera; None for others."""
        try:
            for index, camid in enumerate(self._camids(request)):
                self._session.check_camera(camid, f"Image {index}")
        except InputError as error:
            return refusal(error)
        return None

    def _answers(self, requests: list[Any]) -> list[Any]:
        """The answers of one run; where the network fails on it, all of them are the error."""
        batches = [values(request, self._facts.input_name) for request in requests]
        camids = [camid for request in requests for camid in self._camids(request)]
        try:
            features = self._session.run(np.concatenate(batches), camids or None)
        except ReidExportError as error:
            return [failure(error) for _ in requests]
        rows = np.split(features, np.cumsum([len(batch) for batch in batches])[:-1])
        return [answer(self._facts.output_name, own) for own in rows]
