"""OpenVINO on CPU."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidruntime.backends import Network, failed_run
from reidruntime.errors import ArtifactError, NotInstalledError
from reidruntime.threads import default_threads


class OpenVinoBackend:
    """A compiled OpenVINO model and the one request that answers it.

    The network computes in float32 (int8 layers of an int8 file stay int8) unless bfloat16 is requested: left alone,
    OpenVINO uses that on CPUs that have it, whatever the file's precision. The latency hint lets one batch use all
    threads, which suits one caller that hands over batch after batch.
    """

    def __init__(self, network: Network, *, threads: int, in_bf16: bool = False) -> None:
        """Load the network, with its convolutions and linear layers in bfloat16 where ``in_bf16``."""
        try:
            import openvino
        except ImportError as error:
            raise NotInstalledError('openvino is not installed: pip install "reidexport[cpu]"') from error

        core = openvino.Core()
        if in_bf16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise NotInstalledError(
                "This CPU has no bfloat16 (AVX-512 BF16 or AMX). Use backend openvino, which computes in float32."
            )
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if in_bf16 else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads < default_threads():
            # Pinned, as they are by default, the threads of all such sessions would share the first CPUs.
            options["ENABLE_CPU_PINNING"] = False
        try:
            compiled = core.compile_model(str(network.path), "CPU", options)
        except RuntimeError as error:
            raise ArtifactError(f"{network.path}: OpenVINO cannot load it: {error}") from error
        if in_bf16:
            _check_bf16(compiled, network)
        self._request = compiled.create_infer_request()
        self._network = network
        compute = "bf16" if in_bf16 else "fp32"
        if network.precision != compute:
            compute += " and int8" if network.precision == "int8" else f" (file: {network.precision})"
        version = openvino.__version__.split("-")[0]
        self._description = f"OpenVINO {version}, CPU, {threads} threads, {compute}"

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Answer one batch; raises ArtifactError where OpenVINO fails."""
        try:
            self._request.infer({self._network.input.name: batch}, share_inputs=True)
        except RuntimeError as error:
            raise failed_run(self._network, len(batch), "OpenVINO", error) from error
        # A copy: the request writes its next answer into the same memory.
        return np.array(self._request.get_tensor(self._network.output.name).data)

    def describe(self) -> str:
        """Name and version, device, threads, precision it computes in."""
        return self._description


def _check_bf16(compiled: Any, network: Network) -> None:
    """Ask the compiled model what its convolutions compute in."""
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    layers = [each["runtimePrecision"].value for each in facts if each["layerType"].value == "Convolution"]
    if others := sorted(set(layers) - {"bf16"}):
        raise ArtifactError(
            f"{network.path}: OpenVINO computes {len(layers)} convolutions in bf16 and {', '.join(others)}, expected "
            "bf16 for all. Use backend openvino."
        )
