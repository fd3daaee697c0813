"""What a TensorRT network and a finished engine compute in, as TensorRT itself reports it."""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reidruntime.artifact.manifest import Precision

from reidexport.errors import PrecisionError
from reidexport.files import replaced_when_whole

_TYPES_OF_WEIGHTED_LAYERS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
_PRECISION_OF_TYPE = {"FLOAT": "fp32", "HALF": "fp16", "INT8": "int8", "BF16": "bf16", "FP8": "fp8"}
# The inspector names a type outright ("Half"), or within a format ("Row major linear FP16 format").
_PRECISION_OF_WORD = {
    "int8": "int8", "fp8": "fp8", "bf16": "bf16", "bfloat16": "bf16", "half": "fp16", "fp16": "fp16", "float": "fp32",
    "fp32": "fp32",
}  # fmt: skip
_NARROWEST_FIRST = ("int8", "fp8", "fp16", "bf16", "fp32")
UNPROVED = "unproved"
# Kinds of entries that TensorRT's compiler generates from any layers it fuses.
_COMPILED_KINDS = ("kgen", "myelin")
# The layers of the first profile have no such ending.
_PROFILE = re.compile(r"\s*\[profile \d+\]")
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_NUM_NAMED = 10


@dataclass(frozen=True)
class WeightedLayer:
    """A layer with weights: its name, whether it is a convolution, and the precision that it computes in.

    The precision is "unproved" where what TensorRT reports allows for more than one.
    """

    name: str
    is_convolution: bool
    precision: str


def layers_of_network(network: Any, trt: Any) -> list[WeightedLayer]:
    """Convolutions and matrix products of a parsed ``INetworkDefinition``, before anything is built.

    In a strongly typed network a layer computes in the type of its tensors. An int8 layer is a layer between
    DequantizeLinear and QuantizeLinear: its own tensors are float, and its data comes out of a dequantization.
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
            found.append(WeightedLayer(layer.name, "CONVOLUTION" in kind, "int8" if dequantized else own))
    return found


def layers_of_engine(inspection: str, convolutions: Collection[str] = ()) -> list[WeightedLayer]:
    """Convolutions and matrix products in the JSON of ``EngineInspector.get_engine_information``.

    TensorRT 10 writes ``"Format/Datatype": "Row major linear FP16 format"`` for a tensor, TensorRT 11
    ``"Format": …, "DataType": "Half"``; both are read. A fused layer counts as one, and every optimization profile has
    layers of its own.

    A convolution that has no entry of its own kind may be within one that the compiler generated ("kgen"), which names
    it in its metadata. One that is named nowhere is unproved, unless there are as many entries as convolutions.

    Args:
        inspection: the JSON text.
        convolutions: the names of the network's convolutions.
    """
    profiles: dict[str, list[dict[str, Any]]] = {"": []}
    for entry in json.loads(inspection)["Layers"]:
        if isinstance(entry, dict):
            suffix = _PROFILE.search(entry.get("Name", ""))
            profiles.setdefault(suffix[0] if suffix else "", []).append(entry)
    return [layer for entries in profiles.values() for layer in _layers_of_profile(entries, convolutions)]


def _layers_of_profile(
    entries: Sequence[dict[str, Any]], convolutions: Collection[str]
) -> Iterable[WeightedLayer]:
    # The compiler's entries that only move what a convolution works on name that convolution, too.
    hidden = set(convolutions) - _names_in([entry for entry in entries if _is_convolution(entry)])
    num_found, found = 0, set[str]()
    for entry in entries:
        name, names = entry.get("Name", ""), _names_in([entry])
        if _is_convolution(entry):
            num_found += 1
            yield WeightedLayer(name, True, _precision_of_entry(entry))
        elif _kind_has(entry, _COMPILED_KINDS) and hidden & names:
            num_found, found = num_found + 1, found | names
            yield WeightedLayer(name, True, _only_precision(entry))
        elif _kind_has(entry, ("gemm", "matrix")):
            yield WeightedLayer(name, False, _precision_of_entry(entry))
    if num_found < len(convolutions):
        for name in sorted(hidden - found):
            yield WeightedLayer(name, True, UNPROVED)


def count_precisions(layers: Sequence[WeightedLayer]) -> dict[str, int]:
    """How many layers compute in each precision."""
    return dict(sorted(Counter(layer.precision for layer in layers).items()))


def check_precision(
    layers: Sequence[WeightedLayer],
    wanted: Precision,
    where: str,
    num_float_convolutions: int = 0,
    *,
    allow_unproved: bool = False,
) -> None:
    """Prove that convolutions compute in the precision that the file is called by.

    Args:
        layers: from :func:`layers_of_network` or :func:`layers_of_engine`.
        wanted: what the engine is to be.
        where: "network" or "engine", for the message.
        num_float_convolutions: how many convolutions the ONNX file itself keeps wider (int8 files do).
        allow_unproved: accept convolutions whose precision TensorRT does not report.

    Raises:
        PrecisionError: there is no convolution, or more than that many compute in something wider, or in something that
            is not known.
    """
    convolutions = [layer for layer in layers if layer.is_convolution]
    if not convolutions:
        raise PrecisionError(f"the {where} shows no convolution, so its precision cannot be proved")
    narrow = ("fp32",) if wanted == "fp32" else _NARROWEST_FIRST[: _NARROWEST_FIRST.index(wanted) + 1]
    accepted = {*narrow, *([UNPROVED] if allow_unproved else [])}
    wrong = [layer for layer in convolutions if layer.precision not in accepted]
    if len(wrong) > num_float_convolutions:
        names = "\n  ".join(f"{layer.name}: {layer.precision}" for layer in wrong[:_NUM_NAMED])
        more = f"\n  and {len(wrong) - _NUM_NAMED} more" if len(wrong) > _NUM_NAMED else ""
        only_unproved = all(layer.precision == UNPROVED for layer in wrong)
        are_not = f"cannot be proved to be {wanted}" if only_unproved else f"are not {wanted}"
        raise PrecisionError(
            f"{len(wrong)} of {len(convolutions)} convolutions of the {where} {are_not}, expected "
            f"{num_float_convolutions or 'none'}:\n  {names}{more}"
        )


def proved_layers(
    inspection: str,
    parsed: Sequence[WeightedLayer],
    wanted: Precision,
    num_float_convolutions: int,
    *,
    allow_unproved: bool,
    described_in: Path,
    log: Callable[[str], None],
) -> list[WeightedLayer]:
    """The layers of a finished engine, made from ``parsed``, their precision proved by :func:`check_precision`.

    TensorRT's description of them, ``inspection``, is JSON; it is written to ``described_in`` where the proof fails.
    """
    layers = layers_of_engine(inspection, [layer.name for layer in parsed if layer.is_convolution])
    convolutions = [layer for layer in layers if layer.is_convolution]
    num_unproved = sum(layer.precision == UNPROVED for layer in convolutions)
    try:
        check_precision(layers, wanted, "engine", num_float_convolutions, allow_unproved=allow_unproved)
    except PrecisionError as error:
        with replaced_when_whole(described_in) as temporary:
            temporary.write_text(inspection)
        hint = " If it convinces you, build with --allow-unproved-precision." if num_unproved else ""
        raise PrecisionError(
            f"{error}\nWhat TensorRT says of every layer is in {described_in}.{hint}"
        ) from error
    if allow_unproved and num_unproved:
        log(
            f"accepted without a proof of their precision: {num_unproved} of {len(convolutions)} convolutions of the "
            "engine"
        )
    return layers


def _is_convolution(entry: dict[str, Any]) -> bool:
    kinds = f"{entry.get('LayerType', '')} {entry.get('ParameterType', '')}".lower()
    return "conv" in kinds or ("correlation" in kinds and "conv" in str(entry.get("Metadata", "")).lower())


def _kind_has(entry: dict[str, Any], words: Iterable[str]) -> bool:
    kind = str(entry.get("LayerType", "")).lower()
    return any(word in kind for word in words)


def _names_in(entries: Iterable[dict[str, Any]]) -> set[str]:
    """The names of the network's layers that entries are made of, as far as they say."""
    found: set[str] = set()
    for entry in entries:
        found.update(_ONNX_LAYER.findall(str(entry.get("Metadata", ""))))
        found.update(re.split(r" \+ | \|\| ", _PROFILE.sub("", entry.get("Name", ""))))
    return found


def _precision_of_entry(entry: dict[str, Any]) -> str:
    """That of the weights where they are listed, else that of the input; unproved where the output is narrower.

    A convolution multiplies in the type of its input. Float in and FP16 out may be a float convolution whose answer is
    cast, or an FP16 one whose input is.
    """
    weights = entry.get("Weights")
    if isinstance(weights, dict) and (own := _precision_in(str(weights.get("Type", "")))):
        return own
    inputs, outputs = _precisions(entry, "Inputs"), _precisions(entry, "Outputs")
    if inputs and outputs and _NARROWEST_FIRST.index(outputs[0]) < _NARROWEST_FIRST.index(inputs[0]):
        return UNPROVED
    return next(iter([*inputs, *outputs]), "other")


def _only_precision(entry: dict[str, Any]) -> str:
    """That of all tensors of an entry that TensorRT has fused without saying how; unproved where they differ."""
    found = {*_precisions(entry, "Inputs"), *_precisions(entry, "Outputs")}
    return found.pop() if len(found) == 1 else UNPROVED


def _precisions(entry: dict[str, Any], side: str) -> list[str]:
    """Of the tensors on one side; those that nothing is computed in, as uint8 images and integers, have none."""
    texts = (
        str(tensor.get("DataType") or tensor.get("Format/Datatype", "")) for tensor in entry.get(side, ())
    )
    return [precision for text in texts if (precision := _precision_in(text))]


def _precision_in(text: str) -> str | None:
    words = re.findall(r"\w+", text.lower())
    return next((_PRECISION_OF_WORD[word] for word in words if word in _PRECISION_OF_WORD), None)
