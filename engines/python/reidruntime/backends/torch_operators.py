"""ONNX's operators, all but convolutions, as functions of torch tensors."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from reidruntime.artifact.onnx_graph import Array, OnnxNode

Operator = Callable[..., Tensor | tuple[Tensor, ...]]  # a tensor for each output, where there are several
# TensorProto's data types.
DTYPES = {1: torch.float32, 2: torch.uint8, 6: torch.int32, 7: torch.int64, 10: torch.float16}


class UnknownOperatorError(Exception):
    """An operator is not known, or not in this form; the message names it."""


def operator_of(node: OnnxNode, constants: dict[str, Array]) -> tuple[Operator, tuple[str, ...]]:
    """What computes a node that is no convolution: a function of tensors, and the names of those that it takes.

    Shapes, axes and limits are read from the graph's constants here, once.

    Raises:
        UnknownOperatorError: nothing computes it.
    """
    if node.op in _ELEMENTWISE:
        return _ELEMENTWISE[node.op], node.inputs
    if node.op not in {**_WITH_ATTRIBUTES, **_BUILDERS}:
        raise UnknownOperatorError("this operator is not supported")
    if len(node.outputs) != 1 and node.op != "Split":
        raise UnknownOperatorError(f"it has {len(node.outputs)} outputs, expected one")
    form = Form(node, constants)
    if node.op in _BUILDERS:
        return _BUILDERS[node.op](form)
    compute, defaults, required = _WITH_ATTRIBUTES[node.op]
    for name, known in required.items():
        form.require(name, known)
    attributes = {name: form.attributes.get(name, default) for name, default in defaults.items()}
    return partial(compute, **attributes), form.tensors


_ELEMENTWISE: dict[str, Operator] = {
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Erf": torch.erf,
    "Sqrt": torch.sqrt,
    "HardSwish": functional.hardswish,
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": torch.div,
    "Pow": torch.pow,
    "MatMul": torch.matmul,
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
}


def _gemm(x: Tensor, weight: Tensor, bias: Tensor | None = None, **attributes: int) -> Tensor:
    return functional.linear(x, weight if attributes["transB"] else weight.T, bias)


def _layer_norm(x: Tensor, scale: Tensor, bias: Tensor | None = None, *, epsilon: float) -> Tensor:
    return functional.layer_norm(x, scale.shape, scale, bias, epsilon)


# With the attributes that they take and what the absence of one means in ONNX, and those of which one value is known.
_WITH_ATTRIBUTES: dict[str, tuple[Operator, dict[str, Any], dict[str, Any]]] = {
    "Concat": (lambda *parts, axis: torch.cat(parts, axis), {"axis": None}, {}),
    "Flatten": (lambda x: x.flatten(1), {}, {"axis": 1}),
    "Gelu": (functional.gelu, {"approximate": "none"}, {}),
    "Gemm": (_gemm, {"transB": 0}, {"alpha": 1.0, "beta": 1.0, "transA": 0}),
    "HardSigmoid": (lambda x, alpha, beta: (x * alpha + beta).clamp_(0, 1), {"alpha": 0.2, "beta": 0.5}, {}),
    "InstanceNormalization": (
        lambda x, scale, bias, epsilon: functional.instance_norm(x, weight=scale, bias=bias, eps=epsilon),
        {"epsilon": 1e-5},
        {},
    ),
    "LayerNormalization": (_layer_norm, {"epsilon": 1e-5}, {"axis": -1}),
    "LeakyRelu": (lambda x, alpha: functional.leaky_relu(x, alpha), {"alpha": 0.01}, {}),
    "Softmax": (lambda x, axis: x.softmax(axis), {"axis": -1}, {}),
    "Transpose": (lambda x, perm: x.permute(perm), {"perm": None}, {}),
}


class Form:
    """A node's attributes and constant inputs."""

    def __init__(self, node: OnnxNode, constants: dict[str, Array]) -> None:
        self.attributes, self._constants = node.attributes, constants
        self.inputs, self.tensors = node.inputs, tuple(name for name in node.inputs if name)
        self.num_outputs = len(node.outputs)

    def numbers(self, place: int, default: Sequence[int] | None = None) -> list[Any]:
        """A constant input as a flat list."""
        if place >= len(self.inputs) or not self.inputs[place]:
            if default is None:
                raise UnknownOperatorError(f"input {place} is left out")
            return list(default)
        if self.inputs[place] not in self._constants:
            raise UnknownOperatorError(f"input {self.inputs[place]} is computed, expected a constant")
        numbers: list[Any] = self._constants[self.inputs[place]].reshape(-1).tolist()
        return numbers

    def require(self, name: str, known: Any) -> None:
        """Refuse an attribute that is present and has another value."""
        if self.attributes.get(name, known) != known:
            raise UnknownOperatorError(f"{name} is {self.attributes[name]}, expected {known}")

    def symmetric_pads(self) -> tuple[int, int]:
        """Padding of height and width, the same at both ends."""
        self.require("auto_pad", "NOTSET")
        top, left, bottom, right = self.attributes.get("pads", (0, 0, 0, 0))
        if (top, left) != (bottom, right):
            raise UnknownOperatorError(
                f"pads are {(top, left, bottom, right)}, expected the same at both ends"
            )
        return top, left


_Built = tuple[Operator, tuple[str, ...]]


def _normalize(form: Form) -> _Built:
    """The fused operator of :mod:`reidruntime.backends.onnx_fusion`."""
    perm, dtype = form.attributes["perm"], DTYPES[form.attributes["to"]]

    def normalize(images: Tensor, mean: Tensor) -> Tensor:
        planes = images.permute(perm)
        # One kernel: bytes in, the difference computed in float32, its rounding out.
        out = torch.empty_like(planes, dtype=dtype, memory_format=torch.preserve_format)
        return torch.sub(planes, mean, out=out)

    return normalize, form.tensors


def _cast(form: Form) -> _Built:
    if form.attributes.get("to") not in DTYPES:
        raise UnknownOperatorError(f"it casts to the data type {form.attributes.get('to')}")
    dtype = DTYPES[form.attributes["to"]]
    return lambda x: x.to(dtype), form.tensors


def _clip(form: Form) -> _Built:
    lowest, highest = (form.numbers(place, ()) for place in (1, 2))
    low, high = (limit[0] if limit else None for limit in (lowest, highest))
    return lambda x: x.clamp(low, high), form.inputs[:1]


def _pool(form: Form, pool: Callable[..., Tensor], *flags: str) -> _Built:
    kernel, strides = form.attributes.get("kernel_shape"), form.attributes.get("strides", (1, 1))
    padding, options = form.symmetric_pads(), {name: bool(form.attributes.get(name, 0)) for name in flags}
    form.require("dilations", (1, 1))
    form.require("storage_order", 0)
    return lambda x: pool(x, kernel, strides, padding, **options), form.tensors


def _reduce(form: Form, reduce: Callable[..., Tensor]) -> _Built:
    form.require("noop_with_empty_axes", 0)
    # An attribute before opset 18 (ReduceSum: 13).
    axes = list(form.attributes.get("axes", ())) or form.numbers(1)
    keep, dtype = bool(form.attributes.get("keepdims", 1)), DTYPES.get(form.attributes.get("to", 0))
    return lambda x: reduce(x, axes, keepdim=keep, dtype=dtype), form.inputs[:1]


def _pad(form: Form) -> _Built:
    form.require("mode", "constant")
    pads = form.numbers(1)
    value = form.numbers(2, [0])[0]
    rank = len(pads) // 2
    if form.numbers(3, range(rank)) != list(range(rank)):
        raise UnknownOperatorError("it pads some axes only, expected all of them")
    # torch takes the last axis first, its start and its end together.
    both = [pads[axis + end * rank] for axis in reversed(range(rank)) for end in (0, 1)]
    return lambda x: functional.pad(x, both, value=value), form.inputs[:1]


def _reshape(form: Form) -> _Built:
    sizes = form.numbers(1)
    if 0 in sizes and form.attributes.get("allowzero", 0):
        raise UnknownOperatorError("it makes an empty tensor")
    return lambda x: x.reshape([n or x.shape[axis] for axis, n in enumerate(sizes)]), form.inputs[:1]


def _slice(form: Form) -> _Built:
    starts, ends = form.numbers(1), form.numbers(2)
    axes = form.numbers(3, range(len(starts)))
    steps = form.numbers(4, [1] * len(starts))
    if len(starts) != 1:
        raise UnknownOperatorError(f"it cuts along {len(starts)} axes, expected one")
    start, end, axis, step = starts[0], ends[0], axes[0], steps[0]
    if step == -1 and start == -1:  # the beginning of the mirror image

        def mirror(x: Tensor) -> Tensor:
            size = -end - 1 if end < 0 else max(x.shape[axis] - end - 1, 0)
            return x.flip(axis).movedim(axis, 0)[:size].movedim(0, axis)

        return mirror, form.inputs[:1]
    if step < 1:
        raise UnknownOperatorError(
            f"it steps by {step} from {start}, expected forward, or backward from the last one"
        )
    return lambda x: x.movedim(axis, 0)[start:end:step].movedim(0, axis), form.inputs[:1]


def _split(form: Form) -> _Built:
    axis, num_outputs, sizes = form.attributes.get("axis", 0), form.num_outputs, form.numbers(1, ())
    if sizes and len(sizes) != num_outputs:
        raise UnknownOperatorError(f"it has {num_outputs} outputs and sizes of {len(sizes)}")
    # Without sizes the parts are equal, but for the last one.
    return lambda x: x.split(sizes or -(-x.shape[axis] // num_outputs), axis), form.inputs[:1]


def _squeeze(form: Form) -> _Built:
    axes = form.numbers(1)
    return lambda x: x.squeeze(axes), form.inputs[:1]


def _unsqueeze(form: Form) -> _Built:
    axes = form.numbers(1)
    if len(axes) != 1:
        raise UnknownOperatorError(f"it adds {len(axes)} dimensions, expected one")
    return lambda x: x.unsqueeze(axes[0]), form.inputs[:1]


_BUILDERS: dict[str, Callable[[Form], _Built]] = {
    "AveragePool": lambda form: _pool(form, functional.avg_pool2d, "ceil_mode", "count_include_pad"),
    "Cast": _cast,
    "Clip": _clip,
    "MaxPool": lambda form: _pool(form, functional.max_pool2d, "ceil_mode"),
    "Normalize": _normalize,
    "Pad": _pad,
    "ReduceMax": lambda form: _reduce(form, lambda x, axes, *, keepdim, dtype: x.amax(axes, keepdim)),
    "ReduceMean": lambda form: _reduce(form, torch.mean),
    "ReduceSum": lambda form: _reduce(form, torch.sum),
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}
