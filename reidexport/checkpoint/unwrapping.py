"""From what a training program saved to the tensors of one network: which set of weights, under which names."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

from reidexport.checkpoint.families import family_of
from reidexport.checkpoint.pickle_reader import StandIn
from reidexport.checkpoint.tensor_forms import plain_tensor
from reidexport.errors import CheckpointError

# Where training programs put the weights.
WRAPPERS = (
    *("state_dict", "model", "net", "model_state_dict", "module", "weights", "network", "params", "net_dict"),
)
_EMA = re.compile(r"(^|_)ema(_|$)")
_MAX_DEPTH = 3
# Names that torch.compile, FSDP and activation checkpointing put between those of modules.
_WRAPPING_MODULE = re.compile(r"(^|\.)(?:(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+")
# Counters of thop and of torch.optim.swa_utils.AveragedModel, and parameters of losses: no network has them.
_NOT_OF_THE_NETWORK = re.compile(
    r"(.*\.)?total_(ops|params)$|n_averaged$|(\w*criterion\w*|\w*loss\w*|centers?)(\.|$)"
)


class WeightSet(NamedTuple):
    """One of the sets of weights in a file.

    Attributes:
        key: where in the file it is, with dots between keys; empty for the file itself.
        content: a state dict, or a pickled module.
        others: the keys of the sets that were not chosen.
    """

    key: str
    content: dict[Any, Any] | StandIn
    others: tuple[str, ...] = ()


def weight_set(loaded: dict[Any, Any] | list[Any], key: str | None) -> WeightSet:
    """Choose among the sets of weights in a file: the one that is asked for, else the EMA weights, else the only one.

    Args:
        loaded: what the file holds.
        key: which of them, as in :attr:`WeightSet.key`.

    Raises:
        CheckpointError: there is no such key, or it is not clear which one to use.
    """
    found = dict(_sets(loaded, "", _MAX_DEPTH))
    if key is not None:
        if key not in found:
            known = ", ".join(filter(None, found)) or "one set of weights only, under no key"
            raise CheckpointError(f"--weights {key}: it holds no such weights; it holds {known}.")
        return _chosen(key, found)
    if not found:
        if isinstance(loaded, list):
            raise CheckpointError("holds list, expected a dict of tensors or a module")
        usual = (
            content
            for name in WRAPPERS
            if isinstance(content := loaded.get(name), dict | StandIn) and content
        )
        return WeightSet("", next(usual, loaded))  # to say what it holds instead
    averaged = [name for name in found if any(_EMA.search(part) for part in name.split("."))]
    raw = [name for name in found if name not in averaged]
    first, *others = [*averaged, *raw]
    if not others:
        return _chosen(first, found)
    # An average over the parameters alone lacks the statistics of the BatchNorms.
    if len(averaged) == len(raw) == 1 and _names(found[first]) == _names(found[raw[0]]):
        return _chosen(first, found)
    listed = ", ".join(f"{name} ({len(_names(content))} tensors)" for name, content in found.items())
    raise CheckpointError(f"holds several sets of weights: {listed}. Choose one with --weights KEY.")


def tensors_of(state_dict: dict[Any, Any], *, known_prefixes: bool = True) -> dict[str, Tensor]:
    """The tensors of a network, under the names that its project gives them.

    Names lose what DataParallel and torch.compile put before and between them; counters and parameters of losses are
    left out.

    Args:
        state_dict: what a file holds.
        known_prefixes: whether to drop a prefix of all names, such as Lightning's ``model.``, where a known
            project's names remain.

    Raises:
        CheckpointError: it holds no tensors, or some that are quantized, sparse or of another unusual form.
    """
    if {"state", "param_groups"} <= set(map(str, state_dict)):
        raise CheckpointError(
            "this is an optimizer's state, not the model. Pass the model's file of the same epoch "
            "(reid-strong-baseline: NAME_model_N.pth, not NAME_optimizer_N.pth)."
        )
    read = ((str(key), plain_tensor(str(key), value)) for key, value in state_dict.items())
    tensors = {_WRAPPING_MODULE.sub(r"\1", key): tensor for key, tensor in read if tensor is not None}
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
    tensors = _of_the_network(tensors)
    while all(key.startswith("module.") for key in tensors):
        tensors = _of_the_network({key.removeprefix("module."): tensor for key, tensor in tensors.items()})
    return _under_known_names(tensors) if known_prefixes else tensors


def _sets(value: object, key: str, depth: int) -> Iterator[tuple[str, dict[Any, Any] | StandIn]]:
    """Every set of weights in a value, with its key; those under the usual keys hide all the others."""
    if isinstance(value, StandIn) and isinstance(value.state, dict) and "_modules" in value.state:
        yield key, value
    if isinstance(value, list) and value and all(_is_named_tensor(item) for item in value):
        value = dict(value)
    if not isinstance(value, dict) or {"state", "param_groups"} <= set(map(str, value)):
        return
    names = [name for name in value if isinstance(name, str)] if depth else []
    usual = [name for name in names if name in WRAPPERS or _EMA.search(name)]
    if found := [each for name in usual for each in _sets(value[name], _joined(key, name), depth - 1)]:
        yield from found
    elif any(isinstance(item, Tensor) or _is_array(name, item) for name, item in value.items()):
        yield key, value
    else:
        for name in names:
            yield from _sets(value[name], _joined(key, name), depth - 1)


def _joined(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _is_named_tensor(item: object) -> bool:
    return (
        isinstance(item, tuple)
        and len(item) == 2
        and isinstance(item[0], str)
        and isinstance(item[1], Tensor)
    )


def _is_array(name: object, item: object) -> bool:
    return isinstance(item, StandIn) and plain_tensor(str(name), item) is not None


def _chosen(key: str, found: dict[str, dict[Any, Any] | StandIn]) -> WeightSet:
    return WeightSet(key, found[key], tuple(name for name in found if name != key))


def _names(content: dict[Any, Any] | StandIn) -> set[str]:
    """The names of a state dict's tensors; of a pickled module none, which is walked where it is chosen."""
    return set(tensors_of(content)) if isinstance(content, dict) else set()


def _of_the_network(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without counters and parameters of losses, where any remain."""
    return {key: tensor for key, tensor in tensors.items() if not _NOT_OF_THE_NETWORK.match(key)} or tensors


def _under_known_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the prefix that all have, such as Lightning's ``model.``, where a known project's remain.

    What is left of ``backbone.*`` alone fits several projects (docs/decisions/checkpoint.md), so a head must follow.
    """
    inner = tensors
    while family_of(set(inner)) is None:
        prefixes = {key.partition(".")[0] for key in inner}
        if len(prefixes) != 1 or not all("." in key for key in inner):
            return tensors
        inner = {key.partition(".")[2]: tensor for key, tensor in inner.items()}
        if prefixes == {"backbone"} and not any(key.startswith(("classifier.", "fc.")) for key in inner):
            return tensors
    return inner
