"""How many operations an image costs a network, and how many this machine can do: the limit of its speed."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from benchmarks.harness.peak_kernels import gop_per_s, kernels
from benchmarks.harness.turns import Side, calls_in_a_row
from benchmarks.peers.peers import num_threads, onnxruntime_session

_SIDE = 1024  # of the square products: 4 MB a matrix in float32, worked on by blocks that the caches hold
_AT_LEAST_S = 0.1  # for each library


class Peak(NamedTuple):
    """The most operations in a second, two for each multiply-add, and what reached it."""

    gop_per_s: float
    product: str


_highest: dict[str, Peak] = {}  # of this process, by precision


def operations_per_image(path: Path) -> int:
    """Operations of the convolutions and matrix products of an ONNX file for a batch of one, two for each multiply-add.

    Raises:
        ValueError: the shape of an output cannot be inferred.
    """
    graph, shapes = inferred_graph(path)
    return sum(2 * multiply_adds(node, shapes) for node in graph.node)


def inferred_graph(path: Path) -> tuple[onnx.GraphProto, dict[str, list[int]]]:
    """The graph of an ONNX file for a batch of one, and the shapes of its tensors as far as they can be inferred."""
    model = onnx.load(path)
    for tensor in model.graph.input:
        tensor.type.tensor_type.shape.dim[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    for tensor in (*inferred.input, *inferred.value_info, *inferred.output):
        # What is left unknown is the batch, which is one.
        shapes[tensor.name] = [dim.dim_value or 1 for dim in tensor.type.tensor_type.shape.dim]
    return inferred, shapes


def multiply_adds(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    """Those of a convolution or matrix product; none for other nodes.

    Raises:
        ValueError: the shape of one of its tensors is not known.
    """
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return 0
    missing = [name for name in (*node.input[:2], node.output[0]) if name not in shapes]
    if missing:
        raise ValueError(f"{node.name}: the shape of {missing[0]} cannot be inferred.")
    left, right, out = (shapes[name] for name in (*node.input[:2], node.output[0]))
    if node.op_type == "Conv":
        return int(np.prod(out) * np.prod(right[1:]))
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return int(np.prod(out) * left[0 if transposed else -1])


def peak(precision: str) -> Peak:
    """Measure the peak: of int8, bf16, or for anything else float32.

    It is the greatest of what the CPU's multiply-adds reach in registers, and of what the libraries at hand reach: the
    latter are all there is where the former are not known. What was reached before in this process counts as well: a
    virtual machine may have half of its CPUs for a moment.
    """
    precision = precision if precision in ("int8", "bf16") else "fp32"
    products = {"int8": _int8_products, "bf16": _bf16_products, "fp32": _float32_products}[precision]()
    peaks = [Peak(_gop_per_s(run), name) for name, run in products.items()]
    threads = num_threads()
    for kernel in kernels(precision):
        name = f"{kernel.name}, {threads} thread{'s' * (threads > 1)}"
        peaks.append(Peak(gop_per_s(kernel, threads), name))
    _highest[precision] = max(*peaks, _highest.get(precision, peaks[0]))
    return _highest[precision]


def _gop_per_s(run: Side) -> float:
    return 2e-9 * _SIDE**3 / min(calls_in_a_row(run, _AT_LEAST_S))


def _float32_products() -> dict[str, Side]:
    left, right = np.random.default_rng(0).standard_normal((2, _SIDE, _SIDE), np.float32)
    out = np.empty_like(left)
    return {"numpy.matmul float32": lambda: np.matmul(left, right, out=out)}


def _bf16_products() -> dict[str, Side]:
    import torch

    torch.set_num_threads(num_threads())
    left, right = torch.randn(2, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0)).bfloat16()
    out = torch.empty_like(left)
    return {"torch.mm bfloat16": lambda: torch.mm(left, right, out=out)}


def _int8_products() -> dict[str, Side]:
    import torch

    rng = np.random.default_rng(0)
    left = rng.integers(0, 128, (_SIDE, _SIDE), np.uint8)
    right = rng.integers(-64, 64, (_SIDE, _SIDE), np.int8)
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 18]> product (uint8[{_SIDE}, {_SIDE}] left)'
        f" => (int32[{_SIDE}, {_SIDE}] product) {{ product = MatMulInteger(left, right) }}"
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(right, "right"))
    session = onnxruntime_session(model.SerializeToString(), "cpu", {})
    signed, other = torch.from_numpy(left.view(np.int8)), torch.from_numpy(right)
    torch.set_num_threads(num_threads())
    return {
        "ONNX Runtime MatMulInteger uint8 x int8": lambda: session.run(None, {"left": left}),
        "torch._int_mm int8 x int8": lambda: torch._int_mm(signed, other),
    }
