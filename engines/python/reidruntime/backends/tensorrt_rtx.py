"""TensorRT for RTX through ONNX Runtime's plugin provider: an ONNX file, compiled on the RTX GPU that runs it."""

from typing import Any

from reidruntime.backends import Network
from reidruntime.backends.onnxruntime import OnnxRuntimeBackend
from reidruntime.errors import ArtifactError, NotInstalledError
from reidruntime.tensorrt_library import INSTALL, default_batch_size, first_gpu

_REGISTRATION = "reidruntime-tensorrt-rtx"


class TensorRtRtxBackend(OnnxRuntimeBackend):
    """An ``onnxruntime.InferenceSession`` whose every layer runs in TensorRT for RTX."""

    _name = "TensorRT for RTX"

    def __init__(self, network: Network) -> None:
        gpu = first_gpu()
        if gpu is None:
            raise NotInstalledError("TensorRT for RTX needs an NVIDIA RTX GPU, none is here (nvidia-smi).")
        onnxruntime, provider = _import_provider()
        devices = [each for each in onnxruntime.get_ep_devices() if each.ep_name == provider]
        if not devices:
            raise NotInstalledError(
                "TensorRT for RTX does not support this GPU (RTX cards of the 20 series and later). Use backend "
                "tensorrt or onnxruntime."
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.add_provider_for_devices(devices[:1], {})
        # Without it, what the provider cannot take would run on the CPU.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            self._session = onnxruntime.InferenceSession(network.path, options)
        except Exception as error:  # its exception classes share no other base
            raise ArtifactError(f"{network.path}: TensorRT for RTX cannot load it: {error}") from error
        if provider not in self._session.get_providers():
            raise NotInstalledError(
                f"ONNX Runtime did not use {provider}, but {self._session.get_providers()}."
            )
        self.preferred_batch = default_batch_size(gpu)
        self._network = network
        self._description = f"TensorRT for RTX in ONNX Runtime {onnxruntime.__version__}, {network.precision}"


def _import_provider() -> tuple[Any, str]:
    """ONNX Runtime with the provider registered, and the provider's name."""
    try:
        import onnxruntime
        import onnxruntime_ep_nv_tensorrt_rtx as plugin
    except ImportError as error:
        raise NotInstalledError(f"TensorRT for RTX is not installed: {INSTALL['rtx']}") from error
    name: str = plugin.get_ep_name()
    if name not in {device.ep_name for device in onnxruntime.get_ep_devices()}:
        try:
            onnxruntime.register_execution_provider_library(_REGISTRATION, plugin.get_library_path())
        except Exception as error:  # its exception classes share no other base
            raise NotInstalledError(f"TensorRT for RTX cannot load ({error}): {INSTALL['rtx']}") from error
    return onnxruntime, name
