"""The most images a second that a GPU can answer: every layer costs the longer of its arithmetic and its bytes.

A layer is what one kernel can do at best: a convolution, product or pooling, with all that is done to its output value
by value. It reads and writes each tensor once. What it needs is counted from an ONNX file, and what the GPU achieves is
measured (:mod:`benchmarks.harness.gpu_peaks`).
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper

from benchmarks.harness.gpu_peaks import MatrixPrecision, copy_gb_per_s, matrix_product_tflop_per_s
from benchmarks.harness.operations import inferred_graph, multiply_adds

# What a kernel does to its output value by value before it writes it.
_POINTWISE = {
    "Add", "Cast", "Clip", "Div", "HardSigmoid", "HardSwish", "LeakyRelu", "Mul", "PRelu", "Relu", "Sigmoid", "Sub",
    "Transpose",
}  # fmt: skip


class Layer(NamedTuple):
    """What one kernel does for one image, and the weights that it reads once for a whole batch.

    Attributes:
        name: of its first node.
        operations: of its convolution or product, two for each multiply-add.
        image_bytes: of the tensors that it reads and writes, for one image.
        weight_bytes: of the constants that it reads.
    """

    name: str
    operations: int
    image_bytes: int
    weight_bytes: int


class Rates(NamedTuple):
    """What a device achieves: products of large matrices, and copies within its memory, read and written."""

    tflop_per_s: float
    gb_per_s: float


def layers_of(path: Path) -> list[Layer]:
    """The layers of an ONNX file.

    Raises:
        ValueError: the shape of a tensor cannot be inferred.
    """
    graph, shapes = inferred_graph(path)
    bytes_of = _bytes_of(graph, shapes)
    constants = {tensor.name for tensor in graph.initializer}
    users = Counter(name for node in graph.node for name in node.input)
    users.update(tensor.name for tensor in graph.output)
    kernels: list[list[onnx.NodeProto]] = []
    kernel_of: dict[str, int] = {}  # by the tensor that it makes
    for node in graph.node:
        # Of two convolutions that are added, the later one does it, and reads what the other has written.
        joined = [kernel_of[name] for name in node.input if name in kernel_of and users[name] == 1]
        if node.op_type in _POINTWISE and joined:
            number = max(joined)
            kernels[number].append(node)
        else:
            number = len(kernels)
            kernels.append([node])
        kernel_of |= dict.fromkeys(node.output, number)

    def layer(nodes: list[onnx.NodeProto]) -> Layer:
        inside = {name for node in nodes for name in node.output}
        used_inside = Counter(name for node in nodes for name in node.input)
        read = {name for name in used_inside if name} - inside
        written = {name for name in inside if users[name] > used_inside[name]}
        return Layer(
            nodes[0].name,
            sum(2 * multiply_adds(node, shapes) for node in nodes),
            sum(bytes_of[name] for name in (read - constants) | written),
            sum(bytes_of[name] for name in read & constants),
        )

    return [layer(nodes) for nodes in kernels]


def limit_images_per_s(layers: Sequence[Layer], rates: Rates, batch_size: int) -> float:
    """Images a second, where every layer costs the longer of its arithmetic and its bytes."""
    seconds = (
        max(
            layer.operations / (1e12 * rates.tflop_per_s),
            (layer.image_bytes + layer.weight_bytes / batch_size) / (1e9 * rates.gb_per_s),
        )
        for layer in layers
    )
    return 1 / sum(seconds)


@cache
def measured_rates(precision: MatrixPrecision, device: str, matrix_size: int, copy_mib: int) -> Rates:
    """What this device achieves, measured once in a process for each precision."""
    return Rates(
        matrix_product_tflop_per_s(precision, matrix_size, device),
        copy_gb_per_s(device, size_mib=copy_mib),
    )


def _bytes_of(graph: onnx.GraphProto, shapes: dict[str, list[int]]) -> dict[str, int]:
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for tensor in (*graph.input, *graph.value_info, *graph.output):
        types[tensor.name] = tensor.type.tensor_type.elem_type
    sizes = {name: helper.tensor_dtype_to_np_dtype(type_).itemsize for name, type_ in types.items()}
    for node in graph.node:
        if node.op_type == "Cast":  # whoever reads the tensor can cast it, and read the narrower one
            sizes[node.output[0]] = min(sizes[node.input[0]], sizes[node.output[0]])
    return {name: int(np.prod(shape, dtype=np.int64)) * sizes[name] for name, shape in shapes.items()}
