"""What ONNX Runtime answers for a network on the CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from reidexport.errors import NotInstalledError

Answer = Callable[[NDArray[Any]], NDArray[Any]]


def require_onnxruntime() -> None:
    """Check that ONNX Runtime, which every written file is compared with, is installed.

    Raises:
        NotInstalledError: it is missing.
    """
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise NotInstalledError(
            'the exported file is checked with ONNX Runtime, which is not installed: pip install "reidexport[cpu]" '
            '(or "reidexport[gpu]")'
        ) from error


def open_onnx(network: Path | bytes, *, by_definition: bool = False) -> Answer:
    """A function from images, as the network takes them, to its features.

    Args:
        network: a file or its content, with one input and one output.
        by_definition: compute Q/DQ pairs one by one in float32, as ONNX defines them, and not with this CPU's integer
            kernels, which may be worse.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if by_definition:
        options.log_severity_level = 3
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def answer(images: NDArray[Any]) -> NDArray[Any]:
        features: NDArray[Any] = session.run(None, {name: images})[0]
        return features

    return answer
