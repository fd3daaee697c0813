"""An ONNX graph as calls of torch: channels last, each convolution with what follows it in one call of cuDNN.

On a GPU ``max(conv(x) + bias + z, 0)`` is one call where cuDNN has it for the shape; on a CPU, and where it has not,
the same is computed in separate steps. On a CPU FP16 convolutions compute in float32 and round once, as cuDNN's do.
"""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from math import prod
from pathlib import Path
from threading import get_ident
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from reidruntime.artifact.onnx_graph import Array, OnnxNode, read_onnx_graph
from reidruntime.backends.onnx_fusion import fuse
from reidruntime.backends.torch_operators import Form, Operator, UnknownOperatorError, operator_of
from reidruntime.errors import ArtifactError

_Call = Callable[[Tensor, Tensor | None], Tensor]
_OLDEST_OPSET = 13
_CONVOLUTIONS = ("Conv", "ConvRelu", "ConvAddRelu")
_MAX_TRIES, _TIMED_CALLS, _BUSY_CYCLES = 8, 5, 1_000_000
# The largest relative L2 difference between one call and separate steps that rounding explains.
_ROUNDING = {torch.float32: 1e-4, torch.float16: 1e-2}


class TorchNetwork:
    """Called with a batch of any size on its device, it answers.

    Attributes:
        operators: how many nodes there are of each operator, those of :mod:`reidruntime.backends.onnx_fusion` included.
        convolutions: all of them, in the order in which they run.
    """

    def __init__(self, path: Path, input_name: str, output_name: str, device: torch.device) -> None:
        """Read a file whose graph has one input, and move its weights to the device.

        Raises:
            ArtifactError: the file cannot be read or is of an opset that is too old. Or it holds an operator, or a form
                of one, that is not known; the message names it.
        """
        graph = read_onnx_graph(path)
        if graph.opset < _OLDEST_OPSET:
            raise ArtifactError(
                f"{path}: torch-cuda computes ONNX opset {_OLDEST_OPSET} and later, the file is of opset "
                f"{graph.opset}: its operators mean something else. Export it again, or use backend onnxruntime."
            )
        fused = fuse(graph, (output_name,))
        self.operators = Counter(node.op for node in fused.nodes)
        self.convolutions: list[Convolution] = []
        zeros = Zeros()
        self._input_name, self._output_name = input_name, output_name
        steps: list[tuple[Operator, tuple[str, ...], tuple[str, ...]]] = []
        for node in fused.nodes:
            operator: Operator
            try:
                if node.op in _CONVOLUTIONS:
                    operator = Convolution(node, fused.constants, device, zeros)
                    inputs = node.inputs[0], *node.inputs[3:]
                    self.convolutions.append(operator)
                else:
                    operator, inputs = operator_of(node, fused.constants)
            except UnknownOperatorError as error:
                raise ArtifactError(
                    f"{path}: torch-cuda cannot compute {node.op} ({node.name or node.outputs[0]}): {error}. Use "
                    "backend onnxruntime."
                ) from error
            steps.append((operator, inputs, node.outputs))
        last_reads = {name: index for index, (_, inputs, _) in enumerate(steps) for name in inputs}
        self._constants = {
            name: torch.tensor(array, device=device)
            for name, array in fused.constants.items()
            if name in last_reads
        }
        kept = {*self._constants, output_name}
        # Any other tensor is freed where it was read last, so that the next one can reuse its memory.
        self._steps = [
            (*step, [n for n in {*step[1], *step[2]} if last_reads.get(n, index) == index and n not in kept])
            for index, step in enumerate(steps)
        ]

    def __call__(self, batch: Tensor) -> Tensor:
        """Answer a batch in the file's own input type and layout."""
        values = {**self._constants, self._input_name: batch}
        with torch.inference_mode():
            for operator, inputs, outputs, finished in self._steps:
                answer = operator(*(values[name] for name in inputs))
                values.update(zip(outputs, answer if isinstance(answer, tuple) else (answer,), strict=True))
                for name in finished:
                    del values[name]
        return values[self._output_name]

    def fusion_summary(self) -> str:
        """How many of the convolutions with a ReLU run in one call with it, and why the first other one does not."""
        candidates = [each for each in self.convolutions if each.refusals]
        fused = [each for each in candidates if each.runs_in_one_call]
        reasons = [reason for each in candidates for reason in each.refusals.values() if reason]
        summary = f"{len(fused)} of {len(candidates)} convolutions in one call with their ReLU"
        return f"{summary} (cuDNN: {reasons[0]})" if reasons else summary


class Convolution:
    """A convolution, and what follows it.

    Attributes:
        refusals: by batch size, why it does not run in one call; "" where it does.
    """

    def __init__(
        self, node: OnnxNode, constants: dict[str, Array], device: torch.device, zeros: "Zeros"
    ) -> None:
        """Raises UnknownOperatorError for weights that are computed, and for uneven padding."""
        names = [name for name in node.inputs[1:3] if name]
        if missing := [name for name in names if name not in constants]:
            raise UnknownOperatorError(f"its weight {missing[0]} is computed, expected a constant")
        if constants[names[0]].ndim != 4:
            raise UnknownOperatorError(f"its weight has {constants[names[0]].ndim} dimensions, expected 4")
        form = Form(node, constants)
        weight, *bias = (torch.tensor(constants[name], device=device) for name in names)
        self._dtype = weight.dtype
        if device.type == "cpu":
            weight, bias = weight.float(), [each.float() for each in bias]
        self._weight = weight.contiguous(memory_format=torch.channels_last)
        self._bias = bias[0] if bias else None
        self._form = (
            form.attributes.get("strides", (1, 1)),
            form.symmetric_pads(),
            form.attributes.get("dilations", (1, 1)),
            form.attributes.get("group", 1),
        )
        self._has_relu = node.op != "Conv"
        self._may_be_one_call = self._has_relu and device.type == "cuda"
        self._zeros = zeros
        # By thread and batch size, as cuDNN chooses kernels for shapes, and each thread has choices of its own.
        self._calls: dict[tuple[int, int], _Call] = {}
        self.refusals: dict[int, str] = {}

    def __call__(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """float32 or float16 (B, C, H, W) → the same type; ``z`` is added before the ReLU."""
        x = x.contiguous(memory_format=torch.channels_last)
        key = get_ident(), len(x)
        if self._may_be_one_call and key not in self._calls:
            self._calls[key] = self._choose(x, z)
        return self._calls.get(key, self._in_steps)(x, z)

    @property
    def runs_in_one_call(self) -> bool:
        """Whether cuDNN computes it together with its ReLU, at every batch size that was seen."""
        return bool(self.refusals) and not any(self.refusals.values())

    def _in_steps(self, x: Tensor, z: Tensor | None) -> Tensor:
        y = functional.conv2d(x.to(self._weight.dtype), self._weight, self._bias, *self._form)
        if z is not None:
            y = y.add_(z)
        if self._has_relu:
            y = y.relu_()
        return y.to(self._dtype)

    def _in_one_call(self, x: Tensor, z: Tensor | None) -> Tensor:
        if z is None:
            return torch.cudnn_convolution_relu(x, self._weight, self._bias, *self._form)
        return torch.cudnn_convolution_add_relu(x, self._weight, z, 1.0, self._bias, *self._form)

    def _with_zeros(self, x: Tensor, z: Tensor | None) -> Tensor:
        return self._in_one_call(x, self._zeros.like(x, self._weight, self._form))

    def _choose(self, x: Tensor, z: Tensor | None) -> _Call:
        """How this batch size is computed: in one call of cuDNN where that is right and not slower."""
        expected = self._in_steps(x, z)
        limit_s = device_seconds(lambda: self._in_steps(x, z))
        calls = [self._in_one_call] if z is not None else [self._in_one_call, self._with_zeros]
        for call in calls:
            reason = self._refusal(lambda call=call: call(x, z), expected, limit_s)  # type: ignore[misc]
            self.refusals[len(x)] = reason
            if not reason:
                return call
        return self._in_steps

    def _refusal(self, call: Callable[[], Tensor], expected: Tensor, limit_s: float) -> str:
        """Why a call cannot replace the separate steps; "" where it can.

        Without ``z`` torch hands cuDNN the output, not yet written, with a factor of zero. Should a kernel multiply it
        after all, what is there must not be NaN: so the call is tried on memory full of it.
        """
        kept, num_spoiled = [expected], 0
        for _ in range(_MAX_TRIES):
            spoiled = torch.full_like(expected, torch.nan)
            address = spoiled.data_ptr()
            del spoiled  # the allocator hands this block on, or another one, which is then kept
            try:
                kept.append(call())
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # cuDNN finds no kernel
                return str(error)
            distance = (
                (kept[-1] - expected).float().norm() / expected.float().norm().clamp(min=1e-30)
            ).item()
            if not distance <= _ROUNDING[self._dtype]:
                return f"its answer is {distance:.2g} from that of separate steps"
            num_spoiled += kept[-1].data_ptr() == address
            if num_spoiled == 2:  # the first one may have chosen among cuDNN's kernels
                break
        seconds = device_seconds(call)
        return f"it takes {seconds:.2g} s, separate steps {limit_s:.2g} s" if seconds > limit_s else ""


class Zeros:
    """Zeros in the shape of any map, in one piece of memory for each type, which stays where CUDA graphs read it."""

    def __init__(self) -> None:
        self._pieces: dict[torch.dtype, list[Tensor]] = {}

    def like(self, x: Tensor, weight: Tensor, form: tuple[Any, ...]) -> Tensor:
        """Zeros in the shape of a convolution's output."""
        height, width = (
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, padding, dilation in zip(
                x.shape[2:], weight.shape[2:], *form[:3], strict=True
            )
        )
        shape = (len(x), height, width, len(weight))
        pieces = self._pieces.setdefault(x.dtype, [])
        if not pieces or pieces[-1].numel() < prod(shape):
            pieces.append(torch.zeros(prod(shape), dtype=x.dtype, device=x.device))
        return pieces[-1][: prod(shape)].view(shape).permute(0, 3, 1, 2)


def device_seconds(work: Callable[[], object]) -> float:
    """How long the GPU takes for a call: the shortest of a few, enqueued while it is busy, as a graph's calls are."""
    torch.cuda._sleep(_BUSY_CYCLES)  # type: ignore[no-untyped-call]
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(_TIMED_CALLS + 1)]  # type: ignore[no-untyped-call]
    marks[0].record()
    for mark in marks[1:]:
        work()
        mark.record()
    marks[-1].synchronize()
    return min(float(began.elapsed_time(ended)) for began, ended in pairwise(marks)) / 1000
