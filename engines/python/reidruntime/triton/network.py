"""Triton: pixels in, embeddings out, by a session of this package."""

from typing import Any, cast

import numpy as np
import triton_python_backend_utils as pb_utils  # Triton's, in its Python processes only

from reidruntime.backends import BackendName, DeviceName
from reidruntime.errors import ReidExportError
from reidruntime.session import SessionOptions, open_session
from reidruntime.triton import model_facts


class TritonPythonModel:
    """Requests of uint8 images, shape (N, height, width, 3), answered together in one run of the network."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the artifact that the parameters name, with the manifest, backend, device and threads they state."""
        self._facts = model_facts(args)
        parameters = self._facts.parameters
        options = SessionOptions(
            cast(BackendName, parameters["backend"]),
            cast(DeviceName, parameters["device"]),
            int(parameters["threads"]),
        )
        self._session = open_session(parameters["artifact"], options, manifest=self._facts.manifest)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer all requests of a batch; where the network fails on it, all of them get the error."""
        name = self._facts.input_name
        batches = [pb_utils.get_input_tensor_by_name(r, name).as_numpy() for r in requests]
        try:
            features = self._session.run(np.concatenate(batches))
        except ReidExportError as error:
            failure = pb_utils.TritonError(str(error))
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        rows = np.split(features, np.cumsum([len(batch) for batch in batches])[:-1])
        return [pb_utils.InferenceResponse([pb_utils.Tensor(self._facts.output_name, own)]) for own in rows]

    def finalize(self) -> None:
        """Close the session."""
        self._session.close()
