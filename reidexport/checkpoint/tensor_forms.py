"""Values of a state dict: tensors, NumPy arrays, and forms of tensors that no export can use."""

from math import prod
from typing import Any

import torch
from torch import Tensor

from reidexport.checkpoint.pickle_reader import StandIn
from reidexport.errors import CheckpointError

_QUANTIZED = (
    "The checkpoint is quantized. Pass the float checkpoint that it was made from, and quantize its export: "
    "reidexport onnx CHECKPOINT --int8 --calibration DIR."
)
# How torch, torchao and bitsandbytes name what belongs to a quantized weight.
_QUANTIZED_NAMES = (
    ".SCB",
    ".absmax",
    ".quant_map",
    ".zero_point",
    "._packed_params",
    "._packed_params._packed_params",
)
_ARRAY = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_ARRAY_DTYPES = {
    "f2": torch.float16, "f4": torch.float32, "f8": torch.float64, "i1": torch.int8, "i2": torch.int16,
    "i4": torch.int32, "i8": torch.int64, "u1": torch.uint8, "b1": torch.bool,
}  # fmt: skip


def plain_tensor(key: str, value: object) -> Tensor | None:
    """A value of a state dict as a tensor, or None where it is something else.

    Args:
        key: its name.
        value: a tensor, or what the inert reader makes of other things.

    Raises:
        CheckpointError: it is a quantized, 8-bit float, sparse or other tensor that holds no plain numbers.
        ValueError: it is a NumPy array whose parts do not fit each other.
    """
    if key.endswith(_QUANTIZED_NAMES) or ".quant_state." in key:
        raise CheckpointError(f"{key} belongs to a quantized layer. {_QUANTIZED}")
    if isinstance(value, Tensor):
        if "float8" in str(value.dtype):
            raise CheckpointError(_eight_bit_floats(key, str(value.dtype)))
        if key.endswith(".weight") and value.dtype in (torch.int8, torch.uint8) and value.ndim > 1:
            raise CheckpointError(f"{key} is of type {value.dtype}. {_QUANTIZED}")
        return value
    if not isinstance(value, StandIn):
        return None
    if value.qualified_name in _ARRAY:
        return _tensor_of_array(value)
    if value.qualified_name.startswith(("torch._utils._rebuild_", "torch._tensor._rebuild_")):
        raise CheckpointError(_refusal(key, value))
    return None


def _refusal(key: str, value: StandIn) -> str:
    words = [value.qualified_name, *(_qualified_name(argument) for argument in value.args)]
    if any("qtensor" in word or word.startswith(("torchao.", "bitsandbytes.")) for word in words):
        return f"{key} is a quantized tensor. {_QUANTIZED}"
    if float8 := next((word for word in words if "float8" in word), None):
        return _eight_bit_floats(key, float8)
    if "sparse" in value.qualified_name:
        return f"{key} is a sparse tensor. Save it dense, as tensor.to_dense()."
    kind = next((word for word in words[1:] if word), value.qualified_name)
    return f"{key} is a tensor of an unusual kind ({kind}). Save it as a plain one, on the CPU: tensor.detach().cpu()."


def _eight_bit_floats(key: str, dtype: str) -> str:
    return (
        f"{key} holds 8-bit floating-point numbers ({dtype.removeprefix('torch.')}), which are not read. Pass the "
        "checkpoint in float32, float16 or bfloat16 that it was made from."
    )


def _qualified_name(argument: object) -> str:
    name = getattr(argument, "qualified_name", "")
    return name if isinstance(name, str) else ""


def _tensor_of_array(array: StandIn) -> Tensor:
    """A pickled NumPy array as a tensor of its own bytes."""
    _, shape, dtype, is_fortran, data = array.state
    if isinstance(data, StandIn):  # protocol 2 writes bytes as text to encode
        data = str(data.args[0]).encode("latin1") if data.args else b""
    kind, order = _ARRAY_DTYPES.get(dtype.args[0]), dtype.state[1]
    if kind is None or order not in ("<", "|"):
        raise ValueError(f"a NumPy array of type {order}{dtype.args[0]}")
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError(f"a NumPy array of shape {shape}")
    if len(data) != prod(shape) * kind.itemsize:
        raise ValueError(f"a NumPy array of shape {shape} in {len(data)} bytes")
    flat: Any = torch.frombuffer(bytearray(data), dtype=kind) if data else torch.empty(0, dtype=kind)
    tensor: Tensor = flat.reshape(shape[::-1] if is_fortran else shape)
    return tensor.permute(*range(tensor.ndim - 1, -1, -1)) if is_fortran else tensor
