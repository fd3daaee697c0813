"""Triton: image files in, the input of a network out. Decoded and resized as everywhere in this package."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidruntime.errors import ImageError
from reidruntime.images.preprocess import decode_bytes, image_pixels, network_input
from reidruntime.threads import default_threads
from reidruntime.triton import model_facts
from reidruntime.triton.messages import answer, refusal, values

MAX_PIXELS = 1 << 25  # of one image: larger ones are refused before they are decoded


class TritonPythonModel:
    """Bytes of image files, shape (N, 1), become one batch for the network; each request has its own answer."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the manifest and the form of the output from the parameters."""
        self._facts = model_facts(args)
        self._workers = ThreadPoolExecutor(default_threads(), "decode")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request with its batch, or with an error that names the image which cannot be read."""
        name, manifest = self._facts.input_name, self._facts.manifest
        inputs = [values(request, name) for request in requests]
        pending = [
            [self._workers.submit(self._pixels, data, index) for index, data in enumerate(files.ravel())]
            for files in inputs
        ]
        responses = []
        for images in pending:
            try:
                batch = np.stack([image.result() for image in images])
            except ImageError as error:
                responses.append(refusal(error))
                continue
            raw_pixels = self._facts.parameters["output"] == "pixels"
            ready = batch if raw_pixels else network_input(batch, manifest)
            responses.append(answer(self._facts.output_name, ready))
        return responses

    def finalize(self) -> None:
        """End the threads."""
        self._workers.shutdown()

    def _pixels(self, data: bytes, index: int) -> NDArray[np.uint8]:
        name = f"image {index}"
        decoded = decode_bytes(data, name, max_pixels=MAX_PIXELS)
        return image_pixels(decoded, name, self._facts.manifest.preprocess)
