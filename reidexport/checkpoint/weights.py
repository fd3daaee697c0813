"""From a file to the tensors in it: every layout in which training programs leave their weights.

A file may hold a state dict, a state dict under some key, or a whole pickled module whose classes nobody
has any more; nothing of it is ever run (see ``pickle_reader.py``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from reidexport.checkpoint.module_facts import ModuleFacts, module_facts
from reidexport.checkpoint.other_files import ENCRYPTED, refuse_other_files
from reidexport.checkpoint.pickle_reader import STREAM_ERRORS, StandIn, read_torch_file
from reidexport.checkpoint.reid_folder import ReidConfig, is_reid_folder, read_config, weights_file
from reidexport.checkpoint.unwrapping import tensors_of, weight_set
from reidexport.errors import CheckpointError

FORMAT = "reidexport.checkpoint.v1"
# The tensors and modules of the largest known network are some 3000.
MAX_PARTS = 100_000


@dataclass(frozen=True)
class Weights:
    """Tensors as the file names them, and what the file says beside them.

    Attributes:
        state_dict: tensors by name, without DataParallel's ``module.``.
        layout: how the file holds them, in words.
        key: where in the file they are; empty where it holds nothing else.
        other_keys: of the other sets of weights in it, such as the raw ones beside an EMA's.
        module: what a pickled module tells beyond its weights.
        size: (height, width) in pixels that boxmot's trainer notes beside them.
        header: of this project's own format: architecture and preprocessing.
        config: of a folder of roboflow's reid, the same.
    """

    state_dict: dict[str, Tensor]
    layout: str
    key: str = ""
    other_keys: tuple[str, ...] = ()
    module: ModuleFacts = field(default_factory=ModuleFacts)
    size: tuple[int, int] | None = None
    header: Mapping[str, Any] | None = None
    config: ReidConfig | None = None


def read_weights(path: Path, key: str | None = None) -> Weights:
    """Read the tensors of a checkpoint file; no code from the file runs.

    Args:
        path: a file of ``torch.save`` or safetensors, or a folder of roboflow's reid.
        key: which of several sets of weights, such as "model" or "state_dict_ema", with dots between nested keys;
            default: the exponential moving average (EMA) of the only other set, else the only one.

    Raises:
        CheckpointError: not a checkpoint, cut, damaged, another file of a training run (optimizer, centers), or one
            with several sets of weights of which it is not clear which to use.
    """
    try:
        weights = _weights_in(path, key)
        file_size = weights_file(path).stat().st_size
        for key, tensor in weights.state_dict.items():
            if tensor.numel() * tensor.itemsize > file_size:
                raise CheckpointError(
                    f"{key} of shape {list(tensor.shape)} is larger than the whole file of {file_size} bytes"
                )
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return weights


def _weights_in(path: Path, key: str | None) -> Weights:
    is_folder = is_reid_folder(path)
    config, path = read_config(path) if is_folder else None, weights_file(path)
    if is_folder and not path.is_file():
        raise CheckpointError(
            f"a folder of roboflow's reid without its {path.name}. Copy or download it again."
        )
    refuse_other_files(path)
    with path.open("rb") as stream:
        is_safetensors = stream.read(9)[8:] == b"{"
    if is_safetensors:
        weights = _read_safetensors(path, config)
    elif is_folder:
        raise CheckpointError(
            f"its {path.name} is not a safetensors file. Save the model again with save_pretrained."
        )
    else:
        loaded = read_torch_file(path)
        try:
            weights = _unwrap(loaded, key)
        except STREAM_ERRORS as error:
            raise CheckpointError(
                f"its parts are not those of a model ({type(error).__name__}: {error}). It may be damaged: copy it "
                "again."
            ) from error
    if key not in (None, weights.key):
        raise CheckpointError(f"--weights {key}: it holds one set of weights only. Leave --weights out.")
    return weights


def _read_safetensors(path: Path, config: ReidConfig | None) -> Weights:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = tensors_of(load_file(path), known_prefixes=config is None)
    except SafetensorError as error:
        raise CheckpointError(
            f"not a whole safetensors file ({error}). Copy or download it again."
        ) from error
    return Weights(tensors, "folder of roboflow's reid" if config else "safetensors", config=config)


def _unwrap(loaded: object, key: str | None) -> Weights:
    """Find the weights in what a training program saved."""
    if isinstance(loaded, StandIn):
        return _weights_of_module(loaded)
    if not isinstance(loaded, dict | list):
        raise CheckpointError(f"holds {type(loaded).__name__}, expected a dict of tensors or a module")
    if isinstance(loaded, dict) and loaded.get("format") == FORMAT:
        weights = loaded.get("state_dict")
        return Weights(
            tensors_of(weights if isinstance(weights, dict) else {}, known_prefixes=False),
            "reidexport checkpoint",
            header=loaded,
        )
    if isinstance(loaded, dict) and loaded.get("state_dict_encrypted"):
        raise CheckpointError(f"its weights are {ENCRYPTED}")
    found = weight_set(loaded, key)
    if isinstance(found.content, StandIn):
        weights = _weights_of_module(found.content)
    else:
        layout = f"state dict under {found.key!r}" if found.key else "state dict"
        weights = Weights(tensors_of(found.content), layout)
    size = _boxmot_size(loaded) if isinstance(loaded, dict) else None
    return replace(weights, key=found.key, other_keys=found.others, size=size)


def _boxmot_size(loaded: Mapping[Any, Any]) -> tuple[int, int] | None:
    """The size of images that boxmot's trainer notes beside the weights; None in files of others.

    Raises:
        CheckpointError: it trained on images that it resized in a way that is not known here.
    """
    size = loaded.get("img_size")
    if "model_name" not in loaded or not isinstance(size, list | tuple) or len(size) != 2:
        return None
    if loaded.get("preprocess", "resize") != "resize":
        raise CheckpointError(
            f"boxmot trained it with preprocess {loaded['preprocess']!r}: images that keep their shape, with a border "
            "around them. Here images are resized to the whole size, which it would not know. Train it with "
            "preprocess 'resize'."
        )
    if not all(isinstance(side, int) and side > 0 for side in size):
        raise CheckpointError(f"boxmot notes img_size {size!r}, expected height and width in pixels")
    return size[0], size[1]


def _weights_of_module(module: StandIn) -> Weights:
    """Weights and facts of a pickled ``nn.Module`` whose classes are lost."""
    name = module.qualified_name
    if "optim" in name:
        raise CheckpointError(f"this is a pickled optimizer ({name}), not the model. Pass the model's file.")
    parts = list(islice(_walk(module, ""), MAX_PARTS + 1))
    if len(parts) > MAX_PARTS:
        raise CheckpointError(f"the pickled {name} has more than {MAX_PARTS} parts, which no model has")
    state_dict = {key: value for key, value in parts if isinstance(value, Tensor)}
    if not state_dict:
        raise CheckpointError(f"holds a pickled {name}, which has no weights. Expected a model.")
    tensors = tensors_of(state_dict)
    modules = {key.removeprefix("module."): value for key, value in parts if isinstance(value, StandIn)}
    return Weights(tensors, f"pickled module {name}", module=module_facts(modules))


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
