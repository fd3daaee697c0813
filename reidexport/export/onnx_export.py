"""InferenceGraph → one ONNX file that carries its manifest, checked before it appears under its name.

graph ─▶ torch.onnx ─▶ FP32 network ─▶ FP16 or INT8, if asked for ─▶ checks ─▶ manifest in the metadata ─▶ model.onnx
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from reidruntime.artifact.manifest import METADATA_KEY, Manifest, Precision, QuantizationTarget
from reidruntime.images.depth import Depth

from reidexport.data import Dataset
from reidexport.errors import ExportError, InputError
from reidexport.export.fp16 import fp16_model
from reidexport.export.graph import InferenceGraph, manifest_of_graph
from reidexport.export.onnx_check import (
    CHECKED_BATCHES,
    check_file,
    check_parity,
    layer_precisions,
    require_onnxruntime,
)
from reidexport.export.opsets import OPSET, check_opset, in_older_opset
from reidexport.export.quantization.calibration import load_calibration_images
from reidexport.export.quantization.int8 import int8_model
from reidexport.export.quantization.speed import compare_with_fp32
from reidexport.files import replaced_when_whole
from reidexport.progress import ProgressBar, no_progress_bar
from reidexport.version import __version__


def onnx_from_graph(  # noqa: PLR0913 - each is a choice of its own
    graph: InferenceGraph,
    path: str | Path,
    *,
    batch: int | Literal["dynamic"] = "dynamic",
    precision: Precision = "fp32",
    calibration: str | Path | Sequence[str] | None = None,
    target: QuantizationTarget = "cpu",
    opset: int = OPSET,
    tested_on: Dataset | None = None,
    measure_speed: bool = False,
    depth: Depth = "refuse",
    log: Callable[[str], None] = lambda _: None,
    progress_bar: ProgressBar = no_progress_bar,
) -> Manifest:
    """Write a graph as ONNX, compare its answers with torch's, and only then rename it into place.

    Args:
        graph: from ``graph_from_checkpoint``.
        path: where to; an old file there stays until the new one is whole and right.
        batch: "dynamic", or the one batch size that the file is to take.
        precision: "fp16" converts the convolutions, see ``fp16_model``; "int8" quantizes them, see ``int8_model``.
        calibration: for "int8": a folder of images to measure ranges on, or a data set with a train split, or paths.
        target: for "int8": "cpu", or "tensorrt", whose form differs.
        opset: of ONNX's operators; runtimes read the opsets of their time. See ``opsets.check_opset``.
        tested_on: for "int8": the data set that accuracy will be measured on, whose query and gallery are refused as
            calibration images; a data set that they lie in is known without.
        measure_speed: for "int8": also say how fast and how large the network is beside FP32's, which takes seconds.
        depth: for "int8": what becomes of images of more than 8 bits a channel.
        log: called with a line for everything that quantizing found out.
        progress_bar: shows how far the long parts of quantizing are.

    Returns:
        The manifest that the file carries.

    Raises:
        InputError: ``batch`` is not positive, the path cannot be written, INT8 has no fitting images, or the network
            cannot be written in that opset.
        NotInstalledError: ONNX Runtime, which the check needs, is not installed.
        ExportError: the exporter fails, or writes what it should not.
        ParityError: the written file does not answer as torch does.
    """
    if batch != "dynamic" and batch < 1:
        raise InputError(f"batch must be 'dynamic' or at least 1, got {batch}")
    if (precision == "int8") != (calibration is not None):
        raise InputError("INT8, and nothing else, needs a folder of images to calibrate with")
    check_opset(opset, precision)
    require_onnxruntime()
    static = None if batch == "dynamic" else batch
    sizes = (static,) if static else CHECKED_BATCHES
    manifest = manifest_of_graph(graph, static).model_copy(update={"precision": precision})
    drawn = None
    if calibration is not None:  # before what takes long: it may be refused
        drawn = load_calibration_images(calibration, graph.preprocess, tested_on, depth)
    with replaced_when_whole(Path(path)) as temporary, torch.inference_mode():
        model = _fp32_model(graph, static, max(opset, OPSET))
        if opset < OPSET:
            model = in_older_opset(model, opset)
        images = [graph.example(size).numpy() for size in sizes]
        if precision == "fp16":
            model = fp16_model(model)
        if drawn is not None:
            for warning in drawn.warnings:
                log(f"warning: {warning}")
            fp32 = model
            model, quantization = int8_model(
                fp32, drawn, target=target, batch=static, log=log, progress_bar=progress_bar
            )
            # Noise is not what the ranges were made for.
            images = [np.resize(drawn.held_out, (size, *drawn.held_out.shape[1:])) for size in sizes]
            manifest = manifest.model_copy(update={"quantization": quantization})
            if measure_speed:
                compare_with_fp32(fp32, model, manifest, drawn.held_out, log)
        return _write_checked(graph, model, temporary, manifest, images, opset)


def _fp32_model(graph: InferenceGraph, static_batch: int | None, opset: int) -> onnx.ModelProto:
    """The network as torch exports it, without the traces of this machine that torch leaves in every node."""
    exporter_log = logging.getLogger("onnxscript")
    level = exporter_log.level
    with warnings.catch_warnings():
        # torch's and onnxscript's notices of their own internals; failures raise.
        warnings.simplefilter("ignore")
        exporter_log.setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                graph,
                (graph.example(static_batch or 2),),
                dynamo=True,
                opset_version=opset,
                external_data=False,
                verbose=False,
                input_names=["images"],
                output_names=[str(graph.options.feature)],
                dynamic_shapes=None if static_batch else ({0: "batch"},),
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


def _write_checked(
    graph: InferenceGraph,
    model: onnx.ModelProto,
    file: Path,
    manifest: Manifest,
    images: list[NDArray[Any]],
    opset: int,
) -> Manifest:
    """Write a network, check it and its answers to ``images``, and write it again with its manifest, completed."""
    onnx.save(model, file)
    check_file(file, model, opset)
    parity = check_parity(
        lambda batch: graph(torch.from_numpy(batch)).numpy(), file, images, manifest, graph.checkpoint.name
    )
    manifest = manifest.model_copy(update={"layer_precisions": layer_precisions(model), "parity": parity})
    model.metadata_props.add(key=METADATA_KEY, value=manifest.to_json())
    onnx.save(model, file)
    return manifest
