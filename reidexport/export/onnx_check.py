"""What a written ONNX file must pass: ONNX's own checker, and the answers of what it was made from.

Its own answers are those of ONNX Runtime on the CPU.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from reidruntime.artifact.manifest import Manifest, Parity, Precision

from reidexport.errors import ExportError, NotInstalledError, ParityError
from reidexport.metrics.agreement import agreement

Answer = Callable[[NDArray[Any]], NDArray[Any]]

CHECKED_BATCHES = (1, 2, 5)
# Relative L2 error that the file's answers may have against torch's float32 ones.
TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.3}
_PRECISION_OF_TYPE = {
    onnx.TensorProto.FLOAT: "fp32",
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.INT8: "int8",
}


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
    return lambda images: session.run(None, {name: images})[0]


def check_file(file: Path, model: onnx.ModelProto, opset: int) -> None:
    """Check a file that holds a network: its structure, and all that ONNX's full checker looks at, every shape too.

    Raises:
        ExportError: the file is not what it should be.
    """
    check_structure(model, opset)
    try:
        onnx.checker.check_model(str(file), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exporter wrote a file that ONNX's checker refuses: {error}") from error


def check_structure(model: onnx.ModelProto, opset: int) -> None:
    """Check that an exporter wrote the opset it was asked for, and left nothing in that only training needs.

    Raises:
        ExportError: it did not.
    """
    found = {entry.domain: entry.version for entry in model.opset_import}.get("")
    if found != opset:
        raise ExportError(
            f"the exporter wrote opset {found}, expected {opset}: this torch or onnxscript is not supported"
        )
    leftover = sorted({node.op_type for node in model.graph.node} & {"BatchNormalization", "Dropout"})
    if leftover:
        raise ExportError(f"the graph still holds {', '.join(leftover)}, which inference must not")


def check_parity(
    answer: Answer,
    file: Path,
    batches: Iterable[NDArray[Any]],
    manifest: Manifest,
    reference: str,
) -> Parity:
    """Compare a file, in ONNX Runtime on the CPU, with what it was made from.

    Q/DQ pairs in the form for TensorRT are computed as ONNX defines them, and not with this CPU's integer kernels.

    Args:
        answer: the reference: images to features (B, D).
        file: the ONNX file: one input, one output.
        batches: images to compare on, one array per batch size, as both take them.
        manifest: of the file; its precision decides the tolerance.
        reference: what to call the reference.

    Raises:
        ParityError: they differ by more than the tolerance, or in shape.
    """
    quantization, tolerance = manifest.quantization, TOLERANCE[manifest.precision]
    for_tensorrt = quantization is not None and quantization.target == "tensorrt"
    answer_of_file = open_onnx(file, by_definition=for_tensorrt)
    errors, cosines, num_images = [], [], 0
    for images in batches:
        size = len(images)
        expected, found = answer(images), answer_of_file(images)
        if found.shape != expected.shape:
            raise ParityError(
                f"at batch {size} the file answers with shape {found.shape}, {reference} with {expected.shape}"
            )
        if not expected.any(axis=1).all():
            raise ParityError(
                f"at batch {size} {reference} answers an image with zeros, which nothing can be compared with"
            )
        rows = agreement(found, expected)
        errors.append(float(rows.relative_l2.max()))
        cosines.append(float(rows.cosines.min()))
        num_images += size
        if not errors[-1] <= tolerance:
            raise ParityError(
                f"at batch {size} the file is off by a relative L2 error of {errors[-1]:.2e}, allowed "
                f"{tolerance:.0e}; nothing was written"
            )
    return Parity(
        reference=reference,
        num_images=num_images,
        min_cosine=min(cosines),
        max_relative_l2=max(errors),
    )


def layer_precisions(model: onnx.ModelProto) -> dict[str, int]:
    """How many convolution and linear layers hold weights of each precision."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in types:
            types[node.output[0]] = types[node.input[0]]
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    weights = [next((types[name] for name in node.input[1:2] if name in types), None) for node in layers]
    counts = Counter(_PRECISION_OF_TYPE.get(weight, "other") for weight in weights if weight is not None)
    return dict(sorted(counts.items()))
