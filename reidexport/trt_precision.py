"""What a TensorRT network and a finished plan compute in, as TensorRT itself reports it."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reidruntime.manifest import Precision

from reidexport.errors import PrecisionError

_TYPES_OF_WEIGHTED_LAYERS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
_PRECISION_OF_TYPE = {"FLOAT": "fp32", "HALF": "fp16", "INT8": "int8", "BF16": "bf16", "FP8": "fp8"}
# The inspector names a type outright ("Half"), or within a format ("Row major linear FP16 format").
_PRECISION_OF_WORD = {
    "int8": "int8", "fp8": "fp8", "bf16": "bf16", "half": "fp16", "fp16": "fp16", "float": "fp32", "fp32": "fp32",
}  # fmt: skip
_NARROWEST_FIRST = ("int8", "fp8", "fp16", "bf16", "fp32")
_NUM_NAMED = 10


@dataclass(frozen=True)
class Layer:
    """A layer with weights: its name, whether it is a convolution, and the precision that it computes in."""

    name: str
    is_convolution: bool
    precision: str


def layers_of_network(network: Any, trt: Any) -> list[Layer]:
    """Convolutions and matrix products of a parsed ``INetworkDefinition``, before anything is built.

    In a strongly typed network a layer computes in the type of its tensors. An int8 layer is a layer between
    DequantizeLinear and QuantizeLinear: its own tensors are float, and its data comes out of a dequantisation.
    """
    producers = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for place in range(layer.num_outputs):
            producers[layer.get_output(place).name] = layer.type
    found = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kind = layer.type.name
        if kind in _TYPES_OF_WEIGHTED_LAYERS:
            own = _PRECISION_OF_TYPE.get(layer.get_output(0).dtype.name, "other")
            dequantized = producers.get(layer.get_input(0).name) == trt.LayerType.DEQUANTIZE
            found.append(Layer(layer.name, "CONVOLUTION" in kind, "int8" if dequantized else own))
    return found


def layers_of_plan(inspection: str) -> list[Layer]:
    """Convolutions and matrix products in the JSON of ``EngineInspector.get_engine_information``.

    TensorRT 10 writes ``"Format/Datatype": "Row major linear FP16 format"`` for a tensor, TensorRT 11
    ``"Format": …, "DataType": "Half"``; both are read. A fused layer counts as one.
    """
    layers = [entry for entry in json.loads(inspection)["Layers"] if isinstance(entry, dict)]
    return [
        Layer(entry.get("Name", ""), _is_convolution(entry), _precision_of_entry(entry))
        for entry in layers
        if _is_convolution(entry) or _is_matrix_product(entry)
    ]


def count_precisions(layers: Sequence[Layer]) -> dict[str, int]:
    """How many layers compute in each precision."""
    return dict(sorted(Counter(layer.precision for layer in layers).items()))


def check_precision(
    layers: Sequence[Layer], wanted: Precision, where: str, num_float_convolutions: int = 0
) -> None:
    """Prove that convolutions compute in the precision that the file is called by.

    Args:
        layers: from :func:`layers_of_network` or :func:`layers_of_plan`.
        wanted: what the engine is to be.
        where: "network" or "plan", for the message.
        num_float_convolutions: how many convolutions the ONNX file itself keeps wider (int8 files do).

    Raises:
        PrecisionError: there is no convolution, or more than that many compute in something wider.
    """
    convolutions = [layer for layer in layers if layer.is_convolution]
    if not convolutions:
        raise PrecisionError(f"the {where} shows no convolution, so its precision cannot be proved")
    wider = _NARROWEST_FIRST[_NARROWEST_FIRST.index(wanted) + 1 :] if wanted != "fp32" else ()
    wrong = [layer for layer in convolutions if layer.precision in wider or layer.precision == "other"]
    if wanted == "fp32":
        wrong = [layer for layer in convolutions if layer.precision != "fp32"]
    if len(wrong) > num_float_convolutions:
        names = "\n  ".join(f"{layer.name}: {layer.precision}" for layer in wrong[:_NUM_NAMED])
        more = f"\n  and {len(wrong) - _NUM_NAMED} more" if len(wrong) > _NUM_NAMED else ""
        raise PrecisionError(
            f"{len(wrong)} of {len(convolutions)} convolutions of the {where} are not {wanted}, expected "
            f"{num_float_convolutions or 'none'}:\n  {names}{more}"
        )


def _is_convolution(entry: dict[str, Any]) -> bool:
    kinds = f"{entry.get('LayerType', '')} {entry.get('ParameterType', '')}".lower()
    return "conv" in kinds or ("correlation" in kinds and "conv" in str(entry.get("Metadata", "")).lower())


def _is_matrix_product(entry: dict[str, Any]) -> bool:
    kind = str(entry.get("LayerType", "")).lower()
    return "gemm" in kind or "matrix" in kind


def _precision_of_entry(entry: dict[str, Any]) -> str:
    """That of the weights where they are listed, else the narrowest of the layer's tensors."""
    weights = entry.get("Weights")
    if isinstance(weights, dict) and (own := _precision_in(str(weights.get("Type", "")))):
        return own
    tensors = [*entry.get("Inputs", ()), *entry.get("Outputs", ())]
    found = {_precision_in(str(t.get("DataType") or t.get("Format/Datatype", ""))) for t in tensors}
    return next((precision for precision in _NARROWEST_FIRST if precision in found), "other")


def _precision_in(text: str) -> str | None:
    lowered = text.lower()
    return next((precision for word, precision in _PRECISION_OF_WORD.items() if word in lowered), None)
