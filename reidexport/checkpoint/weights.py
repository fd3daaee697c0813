"""From a file to the tensors in it: every layout in which training programs leave their weights.

A file may hold a state dict, a state dict under some key, or a whole pickled module whose classes nobody
has any more; nothing of it is ever run (see ``pickle_reader.py``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from reidexport.checkpoint.pickle_reader import STREAM_ERRORS, StandIn, read_torch_file
from reidexport.errors import CheckpointError

FORMAT = "reidexport.checkpoint.v1"
# The tensors and modules of the largest known network are some 3000.
MAX_PARTS = 100_000
# Where training programs put the weights; the first one found is used.
WRAPPERS = ("state_dict", "model", "net", "model_state_dict", "module")


@dataclass(frozen=True)
class Weights:
    """Tensors as the file names them, and what the file says beside them.

    Attributes:
        state_dict: tensors by name, without DataParallel's ``module.``.
        layout: how the file holds them, in words.
        last_stride: of a pickled module, which carries its strides; None where unknown.
        stem_relu: of a pickled module, which has a ``relu`` beside its layers or not; None where unknown.
        header: of this project's own format: architecture and preprocessing.
    """

    state_dict: dict[str, Tensor]
    layout: str
    last_stride: Literal[1, 2] | None = None
    stem_relu: bool | None = None
    header: Mapping[str, Any] | None = None


def read_weights(path: Path) -> Weights:
    """Read the tensors of a checkpoint file; no code from the file runs.

    Raises:
        CheckpointError: not a checkpoint, cut, damaged, or another file of a training run (optimizer, centers).
    """
    try:
        weights = _weights_in(path)
        file_size = path.stat().st_size
        for key, tensor in weights.state_dict.items():
            if tensor.numel() * tensor.itemsize > file_size:
                raise CheckpointError(
                    f"{key} of shape {list(tensor.shape)} is larger than the whole file of {file_size} bytes"
                )
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return weights


def _weights_in(path: Path) -> Weights:
    if not path.is_file():
        raise CheckpointError("there is no such file")
    with path.open("rb") as stream:
        head = stream.read(64)
    if not head:
        raise CheckpointError("the file is empty. Copy or download it again.")
    if head.startswith((b"version https://git-lfs", b"<")):
        kind = "a Git LFS pointer" if head.startswith(b"version") else "a web page"
        raise CheckpointError(f"this is {kind}, not the checkpoint itself. Download the file it stands for.")
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if not head.startswith((b"PK", b"\x80")):
        raise CheckpointError(
            f"not a checkpoint: neither torch.save's nor safetensors' format (it begins {head[:8]!r})"
        )
    loaded = read_torch_file(path)
    try:
        return _unwrap(loaded)
    except STREAM_ERRORS as error:
        raise CheckpointError(
            f"its parts are not those of a model ({type(error).__name__}: {error}). It may be damaged: copy it again."
        ) from error


def _read_safetensors(path: Path) -> Weights:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return Weights(_tensors(load_file(path)), "safetensors")
    except SafetensorError as error:
        raise CheckpointError(
            f"not a whole safetensors file ({error}). Copy or download it again."
        ) from error


def _unwrap(loaded: object) -> Weights:
    """Find the weights in what a training program saved."""
    if isinstance(loaded, StandIn):
        return _weights_of_module(loaded)
    if not isinstance(loaded, dict):
        raise CheckpointError(f"holds {type(loaded).__name__}, expected a dict of tensors or a module")
    if loaded.get("format") == FORMAT:
        weights = loaded.get("state_dict")
        return Weights(
            _tensors(weights if isinstance(weights, dict) else {}),
            "reidexport checkpoint",
            header=loaded,
        )
    for wrapper in WRAPPERS:
        inner = loaded.get(wrapper)
        if isinstance(inner, StandIn):
            return _weights_of_module(inner)
        if isinstance(inner, dict) and inner:
            return Weights(_tensors(inner), f"state dict under {wrapper!r}")
    return Weights(_tensors(loaded), "state dict")


def _tensors(state_dict: dict[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict, without DataParallel's prefix."""
    tensors = {str(key): value for key, value in state_dict.items() if isinstance(value, Tensor)}
    if {"state", "param_groups"} <= set(map(str, state_dict)):
        raise CheckpointError(
            "this is an optimizer's state, not the model. Pass the model's file of the same epoch "
            "(reid-strong-baseline: NAME_model_N.pth, not NAME_optimizer_N.pth)."
        )
    if set(tensors) == {"centers"}:
        shape = list(tensors["centers"].shape)
        raise CheckpointError(
            f"these are the centers of the center loss, of shape {shape}, not the model. Pass the model's "
            "file of the same epoch."
        )
    if not tensors:
        keys = ", ".join(map(str, list(state_dict)[:8])) or "nothing"
        raise CheckpointError(
            f"holds no tensors (its keys: {keys}). Expected a state dict or one under 'model'."
        )
    while all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    return tensors


def _weights_of_module(module: StandIn) -> Weights:
    """Weights, last stride and stem ReLU of a pickled ``nn.Module`` whose classes are lost."""
    name = module.qualified_name
    if "optim" in name:
        raise CheckpointError(f"this is a pickled optimizer ({name}), not the model. Pass the model's file.")
    parts = list(islice(_walk(module, ""), MAX_PARTS + 1))
    if len(parts) > MAX_PARTS:
        raise CheckpointError(f"the pickled {name} has more than {MAX_PARTS} parts, which no model has")
    state_dict = {key: value for key, value in parts if isinstance(value, Tensor)}
    if not state_dict:
        raise CheckpointError(f"holds a pickled {name}, which has no weights. Expected a model.")
    tensors = _tensors(state_dict)
    modules = {key.removeprefix("module."): value for key, value in parts if isinstance(value, StandIn)}
    layout = f"pickled module {name}"
    first_block = next((key for key in modules if key.endswith("layer4.0")), None)
    if first_block is None:
        return Weights(tensors, layout)
    in_block = [value.state for key, value in modules.items() if key.startswith(f"{first_block}.")]
    strides = [state["stride"] for state in in_block if isinstance(state.get("stride"), tuple)]
    return Weights(
        tensors,
        layout,
        last_stride=None if not strides else (2 if (2, 2) in strides else 1),
        stem_relu=first_block.removesuffix("layer4.0") + "relu" in modules,
    )


def _walk(module: StandIn, prefix: str) -> Iterator[tuple[str, Tensor | StandIn]]:
    """Every tensor and sub-module below a pickled module, with its dotted name."""
    if len(prefix) > 1000:
        raise ValueError(f"modules are nested too deep at {prefix[:100]}...")
    state = module.state if isinstance(module.state, dict) else {}
    for group in ("_parameters", "_buffers"):
        for name, value in (state.get(group) or {}).items():
            if value is not None:
                yield prefix + name, value
    for name, child in (state.get("_modules") or {}).items():
        if isinstance(child, StandIn):
            yield prefix + name, child
            yield from _walk(child, f"{prefix}{name}.")
