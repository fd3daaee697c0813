"""ONNX Runtime on CPU or on an NVIDIA GPU (CUDA)."""

import ctypes
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from reidruntime.backends import Network, failed_run
from reidruntime.errors import ArtifactError, GpuError, NotInstalledError
from reidruntime.tensorrt_library import default_batch_size, first_gpu

# Left alone, CUDA computes the convolutions of an fp32 file in TF32, with 10 bits of mantissa.
_PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}
_NODES_NAMED = 5
_INSTALL = {"cpu": 'pip install "reidexport[cpu]"', "cuda": 'pip install "reidexport[gpu]"'}


class OnnxRuntimeBackend:
    """An ``onnxruntime.InferenceSession`` on exactly the requested device.

    On CUDA every node runs on the GPU: a file with a node that CUDA has no kernel for is refused. INT8 files are
    computed there as ONNX defines them, in float32, as CUDA has no integer convolutions in ONNX Runtime.
    """

    _name = "ONNX Runtime"

    def __init__(self, network: Network, *, device: Literal["cpu", "cuda"], threads: int) -> None:
        if device == "cuda" and network.precision == "int8":
            # CUDA has no integer convolutions to fuse Q/DQ pairs into, and no kernel to dequantize an int32 bias.
            network = replace(network, by_definition=True)
        self._network = network
        on_cpu = device == "cpu"
        self._session = _session_on_cpu(network, threads) if on_cpu else _session_on_cuda(network, threads)
        self.preferred_batch = default_batch_size(None if on_cpu else first_gpu())
        version = import_onnxruntime(device).__version__
        place = f"CPU, {threads} threads" if on_cpu else "CUDA"
        computed = ", as defined, in fp32" if network.by_definition else ""
        self._description = f"ONNX Runtime {version}, {place}, {network.precision}{computed}"

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Answer one batch; raises ArtifactError where ONNX Runtime or its provider fails."""
        network = self._network
        try:
            features: NDArray[Any] = self._session.run([network.output.name], {network.input.name: batch})[0]
        except Exception as error:  # its exception classes share no other base
            raise failed_run(network, len(batch), self._name, error) from error
        return features

    def describe(self) -> str:
        """Names and versions, device, threads, precision."""
        return self._description


def cuda_is_installed() -> bool:
    """Whether the installed onnxruntime was built for CUDA; raises as :func:`import_onnxruntime` does."""
    return _PROVIDERS["cuda"][0] in import_onnxruntime("cuda").get_available_providers()


def import_onnxruntime(device: Literal["cpu", "cuda"]) -> Any:
    """The module ``onnxruntime``; the message about a missing package names the one for ``device``.

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


def _session_on_cuda(network: Network, threads: int) -> Any:
    if not cuda_is_installed():
        raise NotInstalledError(f"The installed onnxruntime cannot use CUDA: {_INSTALL['cuda']}")
    _load_cuda_libraries()
    try:
        return _session(network, "cuda", threads)
    except Exception as error:  # its exception classes share no other base
        raise _cause(error, network, threads) from error


def _session_on_cpu(network: Network, threads: int) -> Any:
    try:
        return _session(network, "cpu", threads)
    except Exception as error:  # its exception classes share no other base
        raise ArtifactError(f"{network.path}: ONNX Runtime cannot load it: {error}") from error


def _session(
    network: Network, device: Literal["cpu", "cuda"], threads: int, *, cpu_fallback: bool = False
) -> Any:
    """A session on a device; ``cpu_fallback`` lets nodes that CUDA cannot take run on the CPU, and records which."""
    onnxruntime = import_onnxruntime(device)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if network.by_definition:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if device == "cuda":
        key = "record_ep_graph_assignment_info" if cpu_fallback else "disable_cpu_ep_fallback"
        options.add_session_config_entry(f"session.{key}", "1")
    # enable_fallback would start the session again on the CPU when a run on CUDA fails.
    return onnxruntime.InferenceSession(
        network.path, options, providers=[_PROVIDERS[device]], enable_fallback=0
    )


def _load_cuda_libraries() -> None:
    """Load CUDA and cuDNN from wherever pip installed them.

    Left alone, ``preload_dlls`` looks for the folder ``nvidia`` beside its own package only, and prints what it misses.
    """
    folders: dict[str, str] = {}
    for entry in sys.path:
        for folder in sorted(Path(entry, "nvidia").glob("*/lib")):
            folders.setdefault(folder.parent.name, str(folder.resolve()))
    for place in (None, *folders.values()):
        with redirect_stdout(StringIO()):
            import_onnxruntime("cuda").preload_dlls(directory=place)


def _cause(refusal: Exception, network: Network, threads: int) -> ArtifactError | GpuError:
    """Why a session that may only use CUDA cannot be made: CUDA has no kernel for some nodes, or does not start.

    ONNX Runtime's message is the same for both: that nodes are assigned to the CPU. A session that may use the CPU as
    well shows the difference.

    Raises:
        ArtifactError: ONNX Runtime refuses the file on the CPU as well.
        GpuError: CUDA does not start, which ONNX Runtime says by itself.
    """
    try:
        session = _session(network, "cuda", threads, cpu_fallback=True)
    except Exception as error:  # its exception classes share no other base
        _session_on_cpu(network, threads)
        raise _cuda_start_error(error) from error
    cpu, cuda = (_PROVIDERS[device][0] for device in ("cpu", "cuda"))
    if cuda not in session.get_providers():
        return _cuda_start_error(_loading_failure())
    assigned = session.get_provider_graph_assignment_info()
    nodes = [node for part in assigned if part.ep_name == cpu for node in part.get_nodes()]
    if not nodes:
        return _cuda_start_error(refusal)
    named = ", ".join(f"{node.op_type} ({node.name})" for node in nodes[:_NODES_NAMED])
    more = f" and {len(nodes) - _NODES_NAMED} more" if len(nodes) > _NODES_NAMED else ""
    return ArtifactError(
        f"{network.path}: ONNX Runtime has no CUDA kernel for {named}{more}, and would run that on the CPU. "
        "Use device cpu, or build a TensorRT engine (reidexport trt)."
    )


def _cuda_start_error(reason: object) -> GpuError:
    return GpuError(
        f"The installed onnxruntime supports CUDA, but CUDA does not start: {str(reason).strip()}. Check the GPU and "
        "its driver with nvidia-smi, and that CUDA and cuDNN are installed in the versions that this onnxruntime was "
        f"built for: {_INSTALL['cuda']}. Device cpu needs neither."
    )


def _loading_failure() -> str:
    """The system's message about the library that holds ONNX Runtime's CUDA; ONNX Runtime itself only logs it."""
    import onnxruntime

    library = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return f"{library.name} loads, but ONNX Runtime does not accept it"
