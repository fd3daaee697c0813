"""OpenVINO on CPU."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidruntime.backends import Network, failed_run
from reidruntime.errors import ArtifactError, NotInstalledError


class OpenVinoBackend:
    """A compiled OpenVINO model and the one request that answers it.

    The network computes in float32 (int8 layers of an int8 file stay int8): left alone, OpenVINO takes
    bfloat16 on CPUs that have it, whatever the file says. The latency hint lets one batch use all threads,
    which suits one caller that hands over batch after batch.
    """

    def __init__(self, network: Network, *, threads: int) -> None:
        """Load the network.

        Raises:
            NotInstalledError: openvino is missing.
            ArtifactError: OpenVINO refuses the file.
        """
        try:
            import openvino
        except ImportError as error:
            raise NotInstalledError('openvino is not installed: pip install "reidexport[cpu]"') from error
        from reidruntime.session import default_threads  # which imports this package

        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads < default_threads():
            # Pinned, as they are by default, the threads of all such sessions would share the first CPUs.
            options["ENABLE_CPU_PINNING"] = False
        try:
            compiled = openvino.Core().compile_model(str(network.path), "CPU", options)
        except RuntimeError as error:
            raise ArtifactError(f"{network.path}: OpenVINO cannot load it: {error}") from error
        self._request = compiled.create_infer_request()
        self._network = network
        compute = {"fp32": "fp32", "fp16": "fp32 (file: fp16)", "int8": "int8 and fp32"}[network.precision]
        version = openvino.__version__.split("-")[0]
        self._description = f"OpenVINO {version}, CPU, {threads} threads, {compute}"

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Answer one batch; raises ArtifactError where OpenVINO fails."""
        try:
            self._request.infer({self._network.input_name: batch}, share_inputs=True)
        except RuntimeError as error:
            raise failed_run(self._network, len(batch), "OpenVINO", error) from error
        # A copy: the request writes its next answer into the same memory.
        return np.array(self._request.get_tensor(self._network.output_name).data)

    def describe(self) -> str:
        """Name and version, device, threads, precision it computes in."""
        return self._description
