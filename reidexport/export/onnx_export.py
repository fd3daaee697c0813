"""InferenceGraph → one ONNX file that carries its manifest, checked before it appears under its name."""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from reidruntime.artifact.manifest import METADATA_KEY, Manifest, Parity, Precision, QuantizationTarget
from reidruntime.images.preprocess import normalize
from reidruntime.images.resize import Image8

from reidexport.errors import ExportError, InputError, NotInstalledError, ParityError
from reidexport.export.fp16 import fp16_model
from reidexport.export.graph import InferenceGraph, manifest_of_graph
from reidexport.export.quantization.calibration import load_calibration_images
from reidexport.export.quantization.int8 import as_defined, int8_model
from reidexport.files import replaced_when_whole
from reidexport.progress import ProgressBar, no_progress_bar
from reidexport.version import __version__

OPSET = 18
CHECKED_BATCHES = (1, 2, 5)
# Relative L2 error that the file's answers may have against torch's float32 ones.
TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.3}
_PRECISION_OF_TYPE = {
    onnx.TensorProto.FLOAT: "fp32",
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.INT8: "int8",
}


def onnx_from_graph(
    graph: InferenceGraph,
    path: str | Path,
    *,
    batch: int | Literal["dynamic"] = "dynamic",
    precision: Precision = "fp32",
    calibration: str | Path | None = None,
    target: QuantizationTarget = "cpu",
    log: Callable[[str], None] = lambda _: None,
    progress_bar: ProgressBar = no_progress_bar,
) -> Manifest:
    """Write a graph as ONNX, compare its answers with torch's, and only then rename it into place.

    Args:
        graph: from ``graph_from_checkpoint``.
        path: where to; an old file there stays until the new one is whole and right.
        batch: "dynamic", or the one batch size that the file is to take.
        precision: "fp16" halves the convolutions, as ``precision.fp16_model`` does; "int8" quantizes them, as
            ``quantization.int8_model`` does.
        calibration: for "int8": a folder of images to measure ranges on, or a data set with a train split.
        target: for "int8": "cpu", or "tensorrt", whose form differs.
        log: called with a line for everything that quantizing found out.
        progress_bar: shows how far the long parts of quantizing are.

    Returns:
        The manifest that the file carries.

    Raises:
        InputError: ``batch`` is not positive, the path cannot be written, or INT8 has no fitting images.
        NotInstalledError: ONNX Runtime, which the check needs, is not installed.
        ExportError: the exporter fails, or writes what it should not.
        ParityError: the written file does not answer as torch does.
    """
    if batch != "dynamic" and batch < 1:
        raise InputError(f"batch must be 'dynamic' or at least 1, got {batch}")
    if (precision == "int8") != (calibration is not None):
        raise InputError("INT8, and nothing else, needs a folder of images to calibrate with")
    require_onnxruntime()
    path = Path(path)
    sizes = CHECKED_BATCHES if batch == "dynamic" else (batch,)
    quantization = None
    with replaced_when_whole(path) as temporary, torch.inference_mode():
        model = _onnx_model(graph, batch)
        checked = [graph.example(size).numpy() for size in sizes]
        if precision == "fp16":
            model = fp16_model(model)
        if calibration is not None:
            images = load_calibration_images(calibration, graph.preprocess)
            for warning in images.warnings:
                log(f"warning: {warning}")
            calibrated, held_out = (_as_input(graph, each) for each in (images.calibrated, images.held_out))
            model, quantization = int8_model(
                model,
                calibrated,
                held_out,
                target=target,
                batch=None if batch == "dynamic" else batch,
                log=log,
                progress_bar=progress_bar,
            )
            # Noise is not what the ranges were made for.
            checked = [np.resize(held_out, (size, *held_out.shape[1:])) for size in sizes]
        _check_structure(model)
        onnx.save(model, temporary)
        _check_file(temporary)
        parity = check_parity(
            lambda images: graph(torch.from_numpy(images)).numpy(),
            temporary,
            checked,
            precision,
            graph.checkpoint.name,
            by_definition=target == "tensorrt" and precision == "int8",
        )
        manifest = manifest_of_graph(
            graph, batch=batch, precision=precision, layer_precisions=layer_precisions(model), parity=parity
        ).model_copy(update={"quantization": quantization})
        entry = model.metadata_props.add()
        entry.key, entry.value = METADATA_KEY, manifest.to_json()
        onnx.save(model, temporary)
    return manifest


def _as_input(graph: InferenceGraph, pixels: Image8) -> NDArray[Any]:
    """Images of the graph's size in the form that it takes."""
    return pixels if graph.preprocess.in_graph else normalize(pixels, graph.preprocess)


def _onnx_model(graph: InferenceGraph, batch: int | Literal["dynamic"]) -> onnx.ModelProto:
    """Export with names of our own and without the traces of this machine that torch leaves in every node."""
    example = graph.example(2 if batch == "dynamic" else batch)
    exporter_log = logging.getLogger("onnxscript")
    level = exporter_log.level
    with warnings.catch_warnings():
        # torch's and onnxscript's notices of their own internals; failures raise.
        warnings.simplefilter("ignore")
        exporter_log.setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                verbose=False,
                input_names=["images"],
                output_names=[str(graph.options.feature)],
                dynamic_shapes=({0: "batch"},) if batch == "dynamic" else None,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ExportError(f"torch {torch.__version__} cannot export this graph: {error}") from error
        finally:
            exporter_log.setLevel(level)
    if program is None:
        raise ExportError("torch.onnx.export gave no program")
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.metadata_props[:]
    model.producer_name, model.producer_version = "reidexport", __version__
    return model


def _check_file(file: Path) -> None:
    try:
        onnx.checker.check_model(str(file), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exporter wrote a file that ONNX's checker refuses: {error}") from error


def _check_structure(model: onnx.ModelProto) -> None:
    opset = {entry.domain: entry.version for entry in model.opset_import}.get("")
    if opset != OPSET:
        raise ExportError(
            f"the exporter wrote opset {opset}, expected {OPSET}: this torch or onnxscript is not supported"
        )
    leftover = sorted({node.op_type for node in model.graph.node} & {"BatchNormalization", "Dropout"})
    if leftover:
        raise ExportError(f"the graph still holds {', '.join(leftover)}, which inference must not")


def check_parity(
    answer: Callable[[NDArray[Any]], NDArray[Any]],
    file: Path,
    batches: Iterable[NDArray[Any]],
    precision: Precision,
    reference: str,
    *,
    by_definition: bool = False,
) -> Parity:
    """Compare a file, in ONNX Runtime on the CPU, with what it was made from.

    Args:
        answer: the reference: images to features (B, D).
        file: the ONNX file: one input, one output.
        batches: images to compare on, one array per batch size, as both take them.
        precision: of the file; decides the tolerance.
        reference: what to call the reference.
        by_definition: compute Q/DQ pairs as ONNX defines them, and not with this CPU's integer kernels.

    Raises:
        ParityError: they differ by more than the tolerance, or in shape.
    """
    import onnxruntime

    options = as_defined(onnxruntime) if by_definition else None
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    errors, cosines, num_images = [], [], 0
    for images in batches:
        size = len(images)
        expected = answer(images).astype(np.float64)
        found = session.run(None, {name: images})[0].astype(np.float64)
        if found.shape != expected.shape:
            raise ParityError(
                f"at batch {size} the file answers with shape {found.shape}, {reference} with {expected.shape}"
            )
        norms = np.linalg.norm(expected, axis=1)
        errors.append(float((np.linalg.norm(found - expected, axis=1) / norms).max()))
        cosines.append(float(((found * expected).sum(1) / norms / np.linalg.norm(found, axis=1)).min()))
        num_images += size
        if not errors[-1] <= TOLERANCE[precision]:
            raise ParityError(
                f"at batch {size} the file is off by a relative L2 error of {errors[-1]:.2e}, allowed "
                f"{TOLERANCE[precision]:.0e}; nothing was written"
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


def require_onnxruntime() -> None:
    """Raise NotInstalledError where ONNX Runtime, which checks every written file, is missing."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise NotInstalledError(
            'the exported file is checked with ONNX Runtime, which is not installed: pip install "reidexport[cpu]" '
            '(or "reidexport[gpu]")'
        ) from error
