"""Any ONNX artifact → one that takes ``scale · (pixel - offset)``, with one scale for the three channels.

That is all that some programs can do to an image. What they cannot, dividing by a deviation per channel, moves into the
graph, behind the input and before the first padding: there it is exact.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from reidruntime.artifact.manifest import METADATA_KEY, Manifest, Preprocess, TensorSpec

from reidexport.errors import ArtifactError
from reidexport.export.fp16 import rename_tensor

_NO_SCALE = (1 / 255, 1 / 255, 1 / 255)  # the deviation of pixels that are left in 0 to 255
_NORMALIZED = "normalized"


def with_one_scale(model: onnx.ModelProto, manifest: Manifest) -> tuple[onnx.ModelProto, Manifest]:
    """Rewrite a network for the float32 input that one scale and three offsets can fill.

    A uint8 artifact of this project is entered behind the subtraction of its mean; a normalized one whose deviations
    differ gets a multiplication in front. Everything else stays as it is.

    Args:
        model: the artifact.
        manifest: its facts.

    Returns:
        The network and its manifest, whose three deviations are equal and whose ``in_graph`` is false.

    Raises:
        ArtifactError: the network takes neither float32 nor uint8 pixels as this project's do.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    pixels = manifest.preprocess
    if pixels.in_graph:
        subtracted = _enter_behind_the_mean(changed, manifest)
        mean = (subtracted.astype(np.float64) / 255).tolist()
        pixels = pixels.model_copy(
            update={"in_graph": False, "layout": "NCHW", "mean": tuple(mean), "std": _NO_SCALE}
        )
    elif manifest.input.dtype != "float32":
        raise ArtifactError(
            f"the network takes {manifest.input.dtype}, expected float32, or the uint8 input of reidexport onnx. "
            "Export it again."
        )
    elif len(set(pixels.std)) > 1:
        _multiply_the_input(changed, manifest.input.name, pixels)
        pixels = pixels.model_copy(update={"std": _NO_SCALE})
    shape = tuple(dim.dim_value or None for dim in changed.graph.input[0].type.tensor_type.shape.dim)
    facts = manifest.model_copy(
        update={
            "preprocess": pixels,
            "input": TensorSpec(name=manifest.input.name, dtype="float32", shape=shape),
            "parity": None,
        }
    )
    helper.set_model_props(
        changed, {**{p.key: p.value for p in model.metadata_props}, METADATA_KEY: facts.to_json()}
    )
    return changed, facts


def _enter_behind_the_mean(model: onnx.ModelProto, manifest: Manifest) -> NDArray[np.float32]:
    """Let the network start where cast, transposed pixels have lost their mean; returns that mean, of 0 to 255."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    name, path = manifest.input.name, []
    for op_type in ("Cast", "Transpose", "Sub"):
        readers = [node for node in graph.node if name in node.input]
        if len(readers) != 1 or readers[0].op_type != op_type:
            raise ArtifactError(
                f"the network does not start as reidexport onnx makes it: {name} goes to "
                f"{', '.join(node.op_type for node in readers)}, expected one {op_type}. Export it with --input "
                "float32."
            )
        path.append(readers[0])
        name = path[-1].output[0]
    if path[-1].input[1] not in weights:
        raise ArtifactError(
            "the network subtracts no constant from its pixels. Export it with --input float32."
        )
    subtracted = numpy_helper.to_array(weights[path[-1].input[1]]).reshape(3)
    rename_tensor(graph.node, name, manifest.input.name)
    for node in path:
        graph.node.remove(node)
    if not any(path[-1].input[1] in node.input for node in graph.node):
        graph.initializer.remove(weights[path[-1].input[1]])
    height, width = manifest.preprocess.height_px, manifest.preprocess.width_px
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    shape = [batch.dim_value or batch.dim_param, 3, height, width]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(manifest.input.name, TensorProto.FLOAT, shape))
    return subtracted


def _multiply_the_input(model: onnx.ModelProto, name: str, pixels: Preprocess) -> None:
    """Divide what comes in, pixels of 0 to 255 less the mean, by the deviations."""
    graph = model.graph
    rename_tensor(graph.node, name, _NORMALIZED)
    factors = (1 / (255 * np.array(pixels.std))).astype(np.float32)
    factors = factors.reshape((1, 3, 1, 1) if pixels.layout == "NCHW" else (1, 1, 1, 3))
    graph.initializer.append(numpy_helper.from_array(factors, f"{_NORMALIZED}_factors"))
    multiply = helper.make_node("Mul", [name, f"{_NORMALIZED}_factors"], [_NORMALIZED], name=_NORMALIZED)
    graph.node.insert(0, multiply)
