"""ONNX Runtime on CPU or on an NVIDIA GPU (CUDA)."""

from typing import Any, Literal

from numpy.typing import NDArray

from reidruntime.backends import Network, failed_run
from reidruntime.errors import ArtifactError, NotInstalledError

# Left alone, CUDA computes the convolutions of an fp32 file in TF32, with 10 bits of mantissa.
_PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}
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
        self._session = _load(network, device, threads)
        self._place = f"CPU, {threads} threads" if device == "cpu" else "CUDA"

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Answer one batch; raises ArtifactError where ONNX Runtime fails."""
        feeds = {self._network.input.name: batch}
        try:
            features: NDArray[Any] = self._session.run([self._network.output.name], feeds)[0]
        except Exception as error:  # its exception classes share no other base
            raise failed_run(self._network, len(batch), "ONNX Runtime", error) from error
        return features

    def describe(self) -> str:
        """Name and version, device, threads, precision."""
        import onnxruntime

        computed = ", as defined, in fp32" if self._network.by_definition else ""
        return f"ONNX Runtime {onnxruntime.__version__}, {self._place}, {self._network.precision}{computed}"


def cuda_is_installed() -> bool:
    """Whether the installed onnxruntime was built for CUDA; raises as :func:`import_onnxruntime` does."""
    return _PROVIDERS["cuda"][0] in import_onnxruntime("cuda").get_available_providers()


def import_onnxruntime(device: Literal["cpu", "cuda"]) -> Any:
    """The module ``onnxruntime``.

    Args:
        device: what it is wanted for; the message about a missing package names the one for it.

    Raises:
        NotInstalledError: it is missing or damaged.
    """
    try:
        import onnxruntime

        _ = onnxruntime.InferenceSession, onnxruntime.get_available_providers
    except (ImportError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime":
            raise NotInstalledError(f"onnxruntime is not installed: {_INSTALL[device]}") from error
        # AttributeError: what is left when one of its two packages was uninstalled over the other.
        raise NotInstalledError(
            f"onnxruntime is installed but damaged ({error}): pip install --force-reinstall --no-deps "
            "onnxruntime, or onnxruntime-gpu if that is the one in use."
        ) from error
    return onnxruntime


def _load(network: Network, device: Literal["cpu", "cuda"], threads: int) -> Any:
    onnxruntime = import_onnxruntime(device)
    provider, provider_options = _PROVIDERS[device]
    if device == "cuda":
        if not cuda_is_installed():
            raise NotInstalledError(f"The installed onnxruntime cannot use CUDA: {_INSTALL[device]}")
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if network.by_definition:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        # enable_fallback would start the session again on the CPU when a run on CUDA fails.
        session = onnxruntime.InferenceSession(
            network.path, options, providers=[(provider, provider_options)], enable_fallback=0
        )
    except Exception as error:  # its exception classes share no other base
        raise ArtifactError(f"{network.path}: ONNX Runtime cannot load it: {error}") from error
    # ONNX Runtime goes on with the CPU alone when a provider does not load.
    if provider not in session.get_providers():
        raise NotInstalledError(
            f"ONNX Runtime could not start {provider} and offers {session.get_providers()}. "
            f"Check the driver with nvidia-smi, then: {_INSTALL[device]}"
        )
    return session
