"""INT8 is a property of the graph too: FP32 ONNX → the same network with Q/DQ pairs around what computes in INT8.

    calibration images ─▶ ranges of every tensor ─▶ Q/DQ graph ─▶ error on other images ─▶ which layers stay float32

Two forms, since targets differ:

* ``"cpu"``: uint8 activations and signed 7-bit weights, Q/DQ around convolutions, additions and poolings. With 8-bit
  weights, kernels of CPUs without VNNI overflow their 16-bit sums: one file would answer differently on two machines.
* ``"tensorrt"``: signed 8-bit activations and weights, both symmetric, float32 biases, Q/DQ on the inputs of
  convolutions only, so that TensorRT fuses additions and activations behind them.

Pooling behind the last map, neck, L2 and output stay float32.
"""

import logging
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from reidruntime.artifact.manifest import Quantization, QuantizationTarget, RangeMethod

from reidexport.errors import InputError, ParityError
from reidexport.export.onnx_check import open_onnx
from reidexport.export.quantization.activation_ranges import Histogram, Range, collect_histograms
from reidexport.export.quantization.calibration import CalibrationImages
from reidexport.metrics.agreement import agreement
from reidexport.progress import ProgressBar

# Mean relative L2 error of the features, above which layers are left in float32.
TARGET_ERROR = 0.04
# A network that is further off than this is not the same network any more.
REFUSED_ERROR = 0.15
_LARGEST_FLOAT_SHARE = 0.25
_NUM_IMAGES_PER_LAYER = 8
_BATCH_SIZE = 8
_NUM_PRINTED = 10
_MAP_RANK = 4  # batch, channels, height, width
_FOLLOWS = {"Relu", "Clip", "MaxPool", "AveragePool"}

_WEIGHT_BITS: dict[QuantizationTarget, Literal[7, 8]] = {"cpu": 7, "tensorrt": 8}

Pixels = NDArray[Any]
_Item = TypeVar("_Item")


def int8_model(
    model: onnx.ModelProto,
    images: CalibrationImages,
    *,
    target: QuantizationTarget,
    batch: int | None,
    log: Callable[[str], None],
    progress_bar: ProgressBar,
) -> tuple[onnx.ModelProto, Quantization]:
    """Quantize a network: ranges by the rule that changes the features least, the layers that hurt most left float32.

    Args:
        model: an FP32 network with one input, weights inside.
        images: to measure ranges on, and others to measure errors on.
        target: which form to write.
        batch: the one batch size that the network takes, if it does.
        log: called with a line for each thing that was found out.
        progress_bar: shows how far the long parts are.

    Returns:
        The Q/DQ network, and how it was made.

    Raises:
        InputError: the network has no convolution, or is a transformer, or there are fewer images than its batch.
        ParityError: the features are off by more than 15 % even with layers left in float32.
    """
    calibrated, held_out = images.calibrated, images.held_out
    typed, layers, tensors = _to_quantize(model, target)
    if min(len(calibrated), len(held_out)) < (batch or 1):
        raise InputError(f"the network takes batches of {batch}: pass more images to calibrate on")
    with progress_bar("ranges", len(calibrated)) as progress:
        histograms = collect_histograms(typed, tensors, _batches(calibrated, batch), progress)
    trials = _Trials(typed, target, batch, held_out)
    method, ranges, error = _best_ranges(histograms, layers, trials, log, progress_bar)
    sensitivity = _sensitivity(layers, ranges, trials, log, progress_bar)
    left_out, error = _layers_to_leave_out(sensitivity, ranges, trials, error)
    num_float = f"{len(left_out)} of {len(layers)} layers"
    log(f"{num_float} stay float32; relative L2 error of the features {error:.4f}")
    if error > REFUSED_ERROR:
        raise ParityError(
            f"INT8 changes the features by {error:.0%}, allowed are {REFUSED_ERROR:.0%}, with {num_float} left in "
            "float32. Calibrate on images like those of your cameras, or use --fp16."
        )
    quantization = Quantization(
        target=target,
        weight_bits=_WEIGHT_BITS[target],
        range_method=method,
        num_calibrated_images=len(calibrated),
        num_held_out_images=len(held_out),
        mean_relative_l2=error,
        sensitivity=sensitivity,
        float_layers=left_out,
        image_digits=images.digits,
    )
    return _with_qdq(typed, set(layers) - set(left_out), ranges, target), quantization


def int8_without_search(model: onnx.ModelProto, images: Pixels) -> onnx.ModelProto:
    """A network with every convolution and addition of maps in INT8, as CPUs compute it: enough to measure its speed.

    Ranges cover what the images reach; how far the features are off is not looked at.

    Args:
        model: an FP32 network with one input, weights inside, of any batch size.
        images: what it takes, a few are enough.

    Raises:
        InputError: the network has no convolution, or is a transformer, or a tensor in it is not finite.
    """
    typed, layers, tensors = _to_quantize(model, "cpu")
    histograms = collect_histograms(typed, tensors, [images])
    ranges = {name: each.range_by("min-max", symmetric=False) for name, each in histograms.items()}
    return _with_qdq(typed, layers, ranges, "cpu")


def _to_quantize(
    model: onnx.ModelProto, target: QuantizationTarget
) -> tuple[onnx.ModelProto, list[str], set[str]]:
    """The network with its inner types, the layers to quantize and their tensors; refuses what has none, or few."""
    typed = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    layers = _quantizable_layers(typed, target)
    if not layers:
        raise InputError("the network has no convolution to quantize")
    num_products = sum(node.op_type == "MatMul" for node in typed.graph.node)
    if num_products > len(layers):
        raise InputError(
            f"INT8 quantizes convolutions, and this is a transformer: of its {num_products + len(layers)} layers "
            f"{num_products} are matrix products, so nothing would be gained. Use --fp16, or FP32 on CPUs."
        )
    return typed, layers, _float_tensors_of(typed, _nodes_in_int8(typed, layers, target))


class _Trials:
    """A network to try ways of quantizing on; what it answers in float32 is computed once."""

    def __init__(
        self, model: onnx.ModelProto, target: QuantizationTarget, batch: int | None, images: Pixels
    ) -> None:
        self.model, self.target = model, target
        self._batch, self._images = batch, images
        self._expected = _features(model, images, batch)

    def error(
        self, layers: Collection[str], ranges: dict[str, Range], num_images: int | None = None
    ) -> float:
        """Mean relative L2 error of the features with these layers in INT8, on the first images or on all."""
        quantized = _with_qdq(self.model, layers, ranges, self.target)
        images = self._images[: max(num_images, self._batch or 1)] if num_images else self._images
        found = _features(quantized, images, self._batch)
        return float(agreement(found, self._expected[: len(found)]).relative_l2.mean())


def _best_ranges(
    histograms: dict[str, Histogram],
    layers: Sequence[str],
    trials: _Trials,
    log: Callable[[str], None],
    progress_bar: ProgressBar,
) -> tuple[RangeMethod, dict[str, Range], float]:
    """The rule that changes the features least with every layer in INT8, its ranges and that change."""
    methods: tuple[RangeMethod, ...] = get_args(RangeMethod)
    symmetric = trials.target == "tensorrt"
    ranges = {
        method: {name: each.range_by(method, symmetric=symmetric) for name, each in histograms.items()}
        for method in methods
    }
    with closing(_under_bar(methods, "range methods", progress_bar)) as shown:
        errors = {method: trials.error(layers, ranges[method]) for method in shown}
    best = min(methods, key=lambda method: errors[method])
    log("relative L2 error of the features with every layer in INT8, by how the ranges are chosen:")
    for method in methods:
        log(f"  {errors[method]:.4f}  {method}" + " (chosen)" * (method == best))
    return best, ranges[best], errors[best]


def _sensitivity(
    layers: Sequence[str],
    ranges: dict[str, Range],
    trials: _Trials,
    log: Callable[[str], None],
    progress_bar: ProgressBar,
) -> dict[str, float]:
    """The error with each layer alone in INT8, worst first."""
    with closing(_under_bar(layers, "sensitivity", progress_bar)) as shown:
        found = {layer: trials.error([layer], ranges, _NUM_IMAGES_PER_LAYER) for layer in shown}
    ordered = dict(sorted(found.items(), key=lambda item: -item[1]))
    # The name of its weight shows where in the network a convolution is; an addition has none.
    weights = {node.name: node.input[1] for node in trials.model.graph.node if node.op_type == "Conv"}
    log("layers that hurt most, each alone in INT8:")
    for layer, value in list(ordered.items())[:_NUM_PRINTED]:
        log(f"  {value:.4f}  {layer}  {weights.get(layer, '')}".rstrip())
    return ordered


def _under_bar(items: Sequence[_Item], what: str, progress_bar: ProgressBar) -> Generator[_Item, None, None]:
    """The items, one after the other, while a bar shows how many are done."""
    with progress_bar(what, len(items)) as progress:
        for done, item in enumerate(items, start=1):
            yield item
            if progress:
                progress(done)


def _layers_to_leave_out(
    sensitivity: dict[str, float], ranges: dict[str, Range], trials: _Trials, error: float
) -> tuple[tuple[str, ...], float]:
    """The fewest layers, worst first, without which the error is the target's, and the error without them."""
    layers, errors, num_left_out = list(sensitivity), list(sensitivity.values()), 0
    while error > TARGET_ERROR and (num_more := _num_more_to_leave_out(errors, num_left_out, error)):
        num_left_out += num_more
        error = trials.error(layers[num_left_out:], ranges)
    return tuple(layers[:num_left_out]), error


def _num_more_to_leave_out(sensitivities: Sequence[float], num_left_out: int, error: float) -> int:
    """How many more should do, if the squares of the layers' errors add up, as those of independent errors do.

    The sensitivities are those of all layers, worst first; ``error`` is what remains with ``num_left_out`` of them out.
    """
    squares = np.square(sensitivities[num_left_out:])
    remaining = error**2 * (1 - np.cumsum(squares) / squares.sum())
    wanted = 1 + np.searchsorted(-remaining, -(TARGET_ERROR**2))
    allowed = int(len(sensitivities) * _LARGEST_FLOAT_SHARE) - num_left_out
    return max(min(int(wanted), allowed), 0)


def _quantizable_layers(model: onnx.ModelProto, target: QuantizationTarget) -> list[str]:
    """Names of the convolutions, and for CPUs of the additions of maps."""
    weights = {tensor.name for tensor in model.graph.initializer}
    maps = {
        value.name for value in model.graph.value_info if len(value.type.tensor_type.shape.dim) == _MAP_RANK
    }
    return [
        node.name
        for node in model.graph.node
        if (node.op_type == "Conv" and node.input[1] in weights)
        or (target == "cpu" and node.op_type == "Add" and maps.issuperset(node.input))
    ]


def _nodes_in_int8(model: onnx.ModelProto, layers: Collection[str], target: QuantizationTarget) -> set[str]:
    """Names of these layers, and for CPUs of the activations and poolings whose input is then in INT8."""
    found, tensors = set(layers), set[str]()
    for node in model.graph.node if target == "cpu" else ():
        if node.op_type in _FOLLOWS and node.input[0] in tensors:
            found.add(node.name)
        if node.name in found:
            tensors.update(node.output)
    return found


def _float_tensors_of(model: onnx.ModelProto, nodes: Collection[str]) -> set[str]:
    """Names of the float tensors that nodes take and give, their weights aside."""
    floats = {
        value.name
        for value in (*model.graph.value_info, *model.graph.input)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    names = {name for node in model.graph.node if node.name in nodes for name in (*node.input, *node.output)}
    return floats & names


def _with_qdq(
    model: onnx.ModelProto, layers: Collection[str], ranges: dict[str, Range], target: QuantizationTarget
) -> onnx.ModelProto:
    """The network with some layers in INT8; ONNX Runtime's own quantizer writes the Q/DQ pairs."""
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    data = {name: tuple(np.array(end, np.float32) for end in each) for name, each in ranges.items()}
    symmetric = target == "tensorrt"
    options: dict[str, Any] = {"ActivationSymmetric": symmetric, "QuantizeBias": not symmetric}
    if target == "tensorrt":
        options["OpTypesToExcludeOutputQuantization"] = ["Conv"]
    level = logging.root.manager.disable
    logging.disable(max(level, logging.WARNING))  # the quantizer's notices of tensors that it passes over
    try:
        quantizer = QDQQuantizer(
            copy,
            per_channel=True,
            reduce_range=_WEIGHT_BITS[target] == 7,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, data),
            nodes_to_quantize=sorted(_nodes_in_int8(model, layers, target)),
            nodes_to_exclude=[],
            op_types_to_quantize=["Conv", "Add", *sorted(_FOLLOWS)],
            extra_options=options,
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    finally:
        logging.disable(level)
    quantized: onnx.ModelProto = quantizer.model.model
    quantized.producer_name, quantized.producer_version = model.producer_name, model.producer_version
    return quantized


def _features(model: onnx.ModelProto, images: Pixels, batch: int | None) -> NDArray[np.float64]:
    """Features of images, with Q/DQ computed as ONNX defines them."""
    answer = open_onnx(model.SerializeToString(), by_definition=True)
    return np.concatenate([answer(part) for part in _batches(images, batch)]).astype(np.float64)


def _batches(images: Pixels, batch: int | None) -> Iterator[Pixels]:
    """Parts of images; where the network takes one batch size only, what does not fill a batch is left out."""
    size = batch or _BATCH_SIZE
    end = len(images) // size * size if batch else len(images)
    return (images[start : start + size] for start in range(0, end, size))
