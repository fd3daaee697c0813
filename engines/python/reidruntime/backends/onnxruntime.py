"""ONNX Runtime on CPU or on an NVIDIA GPU (CUDA)."""

from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from reidruntime.backends import Network
from reidruntime.errors import ArtifactError, NotInstalledError

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_INSTALL = {"cpu": 'pip install "reidexport[cpu]"', "cuda": 'pip install "reidexport[gpu]"'}


class OnnxRuntimeBackend:
    """An ``onnxruntime.InferenceSession`` on exactly the device that was asked for."""

    def __init__(self, network: Network, *, device: Literal["cpu", "cuda"], threads: int) -> None:
        """Load the network.

        Raises:
            NotInstalledError: onnxruntime or the device is missing.
            ArtifactError: ONNX Runtime refuses the file.
        """
        self._network = network
        self._session = _load(network.path, device, threads)
        self._place = f"CPU, {threads} threads" if device == "cpu" else "CUDA"

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Answer one batch."""
        feeds = {self._network.input_name: batch}
        features: NDArray[Any] = self._session.run([self._network.output_name], feeds)[0]
        return features

    def describe(self) -> str:
        """Name and version, device, threads, precision."""
        import onnxruntime

        return f"ONNX Runtime {onnxruntime.__version__}, {self._place}, {self._network.precision}"


def cuda_is_installed() -> bool:
    """Whether the installed onnxruntime was built for CUDA."""
    import onnxruntime

    return _PROVIDERS["cuda"] in onnxruntime.get_available_providers()


def _load(path: Path, device: Literal["cpu", "cuda"], threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise NotInstalledError(f"onnxruntime is not installed: {_INSTALL[device]}") from error
    if device == "cuda":
        if not cuda_is_installed():
            raise NotInstalledError(f"The installed onnxruntime cannot use CUDA: {_INSTALL[device]}")
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=[_PROVIDERS[device]])
    except Exception as error:  # its exception classes share no other base
        raise ArtifactError(f"{path}: ONNX Runtime cannot load it: {error}") from error
    # ONNX Runtime goes on with the CPU alone when a provider does not load.
    if _PROVIDERS[device] not in session.get_providers():
        raise NotInstalledError(
            f"ONNX Runtime could not start {_PROVIDERS[device]} and offers {session.get_providers()}. "
            f"Check the driver with nvidia-smi, then: {_INSTALL[device]}"
        )
    return session
