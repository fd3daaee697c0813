"""From the checkpoint or ONNX file that ``reidexport trt`` builds from to an ONNX file in the wanted precision."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from reidruntime.artifact.checks import check_external_data
from reidruntime.artifact.manifest import Manifest, Precision, file_sha256
from reidruntime.artifact.onnx_metadata import read_onnx
from reidruntime.artifact.own_manifest import artifact_manifest
from reidruntime.session import SessionOptions, open_session

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.errors import ArtifactError, InputError
from reidexport.evaluation.opening import kind_of
from reidexport.export.fp16 import fp16_model
from reidexport.export.onnx_check import (
    CHECKED_BATCHES,
    check_parity,
    layer_precisions,
    open_onnx,
    require_onnxruntime,
)


@dataclass(frozen=True)
class EngineSource:
    """An ONNX file to build from.

    Attributes:
        path: the file, in its final precision.
        manifest: its facts.
        name: what to call it in the engine's manifest.
        sha256: of the ONNX file that the user gave, or that was made from the checkpoint.
        kept: whether the file is the user's, and stays when the engine is built.
    """

    path: Path
    manifest: Manifest
    name: str
    sha256: str
    kept: bool


@dataclass(frozen=True)
class FileLayers:
    """The layers of an ONNX file that TensorRT is held to, by their nodes' names.

    Attributes:
        fp16_products: matrix products of FP16 numbers.
        layer_norms: LayerNormalizations.
    """

    fp16_products: tuple[str, ...]
    layer_norms: tuple[str, ...]

    @classmethod
    def of(cls, path: Path) -> Self:
        """Those of a file."""
        graph = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False)).graph
        half = {each.name for each in graph.initializer if each.data_type == onnx.TensorProto.FLOAT16} | {
            each.name
            for each in graph.value_info
            if each.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
        }
        named = [node for node in graph.node if node.name]  # TensorRT gives the others names of its own
        return cls(
            tuple(node.name for node in named if node.op_type == "MatMul" and half.issuperset(node.input)),
            tuple(node.name for node in named if node.op_type == "LayerNormalization"),
        )


def find_source(folder: Path) -> Path:
    """The one ONNX file of a folder.

    Raises:
        InputError: there is none, or there are several, which the message lists.
    """
    found = sorted(folder.glob("*.onnx"))
    if not found:
        raise InputError(f"{folder.resolve()}: no .onnx file here. Name a checkpoint or an ONNX file.")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(f"{folder.resolve()}: several .onnx files here, name one of them: {names}")
    return found[0]


@contextmanager
def prepared_source(
    path: Path,
    precision: Precision | None,
    *,
    choices: CheckpointChoices | None = None,
    manifest: Manifest | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Iterator[EngineSource]:
    """Yield an ONNX file in a precision; what had to be made for it is removed at the end of the block.

    A file that carries no manifest is opened on the CPU first, which refuses what ``open_session`` does; of its
    outputs only the manifest's goes into the engine.

    Args:
        path: a checkpoint, or an ONNX file.
        precision: None keeps the file's own; for a checkpoint fp32. ``"fp16"`` converts an FP32 network, and
            compares the two. ``"int8"`` needs an INT8 file.
        choices: what a checkpoint does not show.
        manifest: the facts about an ONNX file that carries none.
        log: called with a line for everything that is assumed or made.

    Raises:
        InputError: the file's precision is not the wanted one and cannot be made from it.
        ArtifactError: the file is not an ONNX model, carries no manifest and none was passed, or cannot be opened.
        CheckpointError: the checkpoint cannot be read.
        ParityError: the converted network does not answer as the FP32 one.
        NotInstalledError: there is nothing to open a file with that carries no manifest.
    """
    if kind_of(path) == "engine":
        raise InputError(f"{path}: is an engine already. Name a checkpoint or an ONNX file.")
    with TemporaryDirectory(prefix="reidexport-") as folder:
        if kind_of(path) == "checkpoint":
            yield _from_checkpoint(path, precision or "fp32", choices, Path(folder) / "model.onnx", log)
            return
        if choices not in (None, CheckpointChoices()):
            raise InputError(
                f"{path} is an ONNX file: what is chosen for a checkpoint is built in, leave it out"
            )
        own = manifest or artifact_manifest(path)
        file = read_onnx(path)
        check_external_data(file, path)
        if manifest:
            open_session(path, SessionOptions(device="cpu"), manifest=manifest).close()
        if own.quantization and own.quantization.target != "tensorrt":
            raise InputError(
                f"{path} is INT8 in the form for CPUs, which TensorRT refuses. {_WAY_TO['int8']}"
            )
        if precision in (None, own.precision) and len(file.outputs) == 1:
            yield EngineSource(path, own, path.name, file_sha256(path), kept=True)
        elif precision in (None, own.precision):
            onnx.save(load_onnx(path, own.output.name), Path(folder) / "model.onnx")
            yield EngineSource(Path(folder) / "model.onnx", own, path.name, file_sha256(path), kept=False)
        elif (own.precision, precision) == ("fp32", "fp16"):
            log(f"{path} is fp32: its convolutions are converted to FP16 for this engine")
            yield _converted_to_fp16(path, own, Path(folder) / "model.onnx")
        else:
            raise InputError(
                f"{path} is {own.precision}, wanted is {precision}. {_WAY_TO[precision or 'fp32']}"
            )


_WAY_TO: dict[Precision, str] = {
    "fp32": "Export the checkpoint without --fp16 and --int8.",
    "fp16": "Export the checkpoint with --fp16.",
    "int8": "INT8 needs images to calibrate with: reidexport onnx CHECKPOINT --int8 --calibration FOLDER --target "
    "tensorrt, then build from that file.",
}


def _from_checkpoint(
    path: Path,
    precision: Precision,
    choices: CheckpointChoices | None,
    target: Path,
    log: Callable[[str], None],
) -> EngineSource:
    from reidexport.checkpoint.loading import load_checkpoint
    from reidexport.export.graph import graph_from_checkpoint
    from reidexport.export.onnx_export import onnx_from_graph

    if precision == "int8":
        raise InputError(f"{path} is a checkpoint. {_WAY_TO['int8']}")
    checkpoint = load_checkpoint(path, choices)
    log(f"{path}: {checkpoint.summary}")
    for line in checkpoint.fact_lines:
        log(f"  {line}")
    manifest = onnx_from_graph(graph_from_checkpoint(checkpoint), target, precision=precision)
    return EngineSource(
        target, manifest, path.resolve().with_suffix(".onnx").name, file_sha256(target), kept=False
    )


def _converted_to_fp16(path: Path, manifest: Manifest, target: Path) -> EngineSource:
    require_onnxruntime()
    original = load_onnx(path, manifest.output.name)
    model = fp16_model(original)
    onnx.save(model, target)
    batch = manifest.batch_profile.static
    images = [_noise(manifest, size) for size in ((batch,) if batch else CHECKED_BATCHES)]
    changed = manifest.model_copy(update={"precision": "fp16", "layer_precisions": layer_precisions(model)})
    parity = check_parity(open_onnx(original.SerializeToString()), target, images, changed, path.name)
    changed = changed.model_copy(update={"parity": parity})
    return EngineSource(target, changed, path.name, file_sha256(path), kept=False)


def load_onnx(path: Path, output_name: str) -> onnx.ModelProto:
    """An ONNX file with all its weights, and with one of its outputs.

    Raises:
        ArtifactError: it cannot be read, or its external weights are missing.
    """
    check_external_data(read_onnx(path), path)
    try:
        model = onnx.load(path)
    except (DecodeError, OSError, onnx.checker.ValidationError) as error:
        raise ArtifactError(f"{path}: cannot be loaded whole: {error}") from error
    if len(model.graph.output) > 1:
        _keep_output(model.graph, output_name)
    return model


def _keep_output(graph: onnx.GraphProto, name: str) -> None:
    """Remove all other outputs, and the nodes and weights that only they need."""
    needed, nodes = {name}, []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            nodes.append(node)
            needed.update(node.input)
            needed.update(each for part in node.attribute for inner in part.g.node for each in inner.input)
    kept = {
        "node": nodes[::-1],
        "initializer": [tensor for tensor in graph.initializer if tensor.name in needed],
        "output": [output for output in graph.output if output.name == name],
    }
    for field, values in kept.items():
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)


def _noise(manifest: Manifest, batch: int) -> NDArray[Any]:
    """Seeded images in the form that the network takes."""
    shape, random = (batch, *(size or 1 for size in manifest.input.shape[1:])), np.random.default_rng(batch)
    if manifest.input.dtype == "uint8":
        return random.integers(0, 256, shape, dtype=np.uint8)
    return random.standard_normal(shape).astype(manifest.input.dtype)
