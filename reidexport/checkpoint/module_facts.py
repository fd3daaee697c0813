"""What a pickled module tells of its network beyond its weights: strides, ReLUs, poolings and eps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from reidruntime.artifact.manifest import Pooling, StemPool

from reidexport.checkpoint.pickle_reader import StandIn
from reidexport.errors import CheckpointError

# (kernel, padding, ceil_mode) of a max pooling with stride 2.
_STEM_POOLS: dict[tuple[int, int, bool], StemPool] = {
    (3, 1, False): "padded",
    (3, 1, True): "padded-ceil",
    (3, 0, False): "valid",
    (3, 0, True): "ceil",
    (2, 0, False): "2x2",
    (2, 0, True): "2x2",
}
# Global poolings by how their classes are called in torch, fast-reid, torchreid and forks.
_POOLINGS: dict[str, Pooling] = {
    "AdaptiveAvgPool2d": "avg",
    "FastGlobalAvgPool2d": "avg",
    "FastGlobalAvgPool": "avg",
    "GlobalAvgPool": "avg",
    "AdaptiveMaxPool2d": "max",
    "FastGlobalMaxPool2d": "max",
    "GlobalMaxPool": "max",
    "GeneralizedMeanPooling": "gem",
    "GeneralizedMeanPoolingP": "gem",
    "GeneralizedMeanPoolingPFpn": "gem",
    "GeneralizedMeanPoolingList": "gem",
    "GeM": "gem",
    "GeMPooling": "gem",
    "GEM": "gem",
}
# What heads call their pooling; a backbone's own "avgpool" is unused where there is one of these.
_POOLING_NAMES = ("gap", "global_pool", "global_avgpool", "pool_layer", "pool", "gem", "avgpool")


@dataclass(frozen=True)
class ModuleFacts:
    """Each None where the module does not tell.

    Attributes:
        last_stride: of its last stage.
        stem_relu: whether it has a ``relu`` beside its layers.
        stem_pool: its ``maxpool`` beside its layers.
        pooling: its global pooling.
        gem_p: the power, where it is a plain number and no parameter.
        batch_norm_eps: of all its BatchNorms.
        unknown: what was found and has no equal here: the fact's name, and the found thing in words.
    """

    last_stride: Literal[1, 2] | None = None
    stem_relu: bool | None = None
    stem_pool: StemPool | None = None
    pooling: Pooling | None = None
    gem_p: float | None = None
    batch_norm_eps: float | None = None
    unknown: tuple[tuple[str, str], ...] = ()


def module_facts(modules: Mapping[str, StandIn]) -> ModuleFacts:
    """Read them from the stand-ins of a module's parts by their dotted names.

    Raises:
        CheckpointError: a part's settings are not of the kind that such a part has.
    """
    states = {name: part.state for name, part in modules.items() if isinstance(part.state, dict)}
    unknown: dict[str, str] = {}
    first_block = next((name for name in states if name.endswith("layer4.0")), None)
    last_stride: Literal[1, 2] | None = None
    stem_relu: bool | None = None
    stem_pool: StemPool | None = None
    if first_block is not None:
        trunk = first_block.removesuffix("layer4.0")
        in_block = [state for name, state in states.items() if name.startswith(f"{first_block}.")]
        strides = [state["stride"] for state in in_block if isinstance(state.get("stride"), tuple)]
        last_stride = None if not strides else 2 if (2, 2) in strides else 1
        stem_relu = f"{trunk}relu" in states
        stem_pool, unknown_pool = _stem_pool(states.get(f"{trunk}maxpool"))
        if unknown_pool:
            unknown["stem_pool"] = unknown_pool
    pooling, gem_p, unknown_class = _pooling(modules, states)
    if unknown_class:
        unknown["pooling"] = unknown_class
    norms = [name for name, part in modules.items() if "BatchNorm" in part.qualified_name]
    eps = {_number(states.get(name, {}).get("eps", 1e-5), f"{name}'s eps") for name in norms}
    if len(eps) > 1:
        listed = ", ".join(f"{value:g}" for value in sorted(eps))
        unknown["batch_norm_eps"] = f"BatchNorms with different eps ({listed})"
    return ModuleFacts(
        last_stride=last_stride,
        stem_relu=stem_relu,
        stem_pool=stem_pool,
        pooling=pooling,
        gem_p=gem_p,
        batch_norm_eps=eps.pop() if len(eps) == 1 else None,
        unknown=tuple(unknown.items()),
    )


def _stem_pool(state: dict[str, Any] | None) -> tuple[StemPool | None, str | None]:
    """The stem's pooling; or None and the found one in words, where no network here has it."""
    if state is None:
        return None, None
    kernel, stride, padding = (_side(state.get(key)) for key in ("kernel_size", "stride", "padding"))
    ceil = bool(state.get("ceil_mode", False))
    found = _STEM_POOLS.get((kernel or 0, padding or 0, ceil)) if stride == 2 else None
    if found or kernel is None:
        return found, None
    return None, f"a stem pooling of {kernel}x{kernel}, stride {stride}, padding {padding}, ceil_mode {ceil}"


def _pooling(
    modules: Mapping[str, StandIn], states: Mapping[str, dict[str, Any]]
) -> tuple[Pooling | None, float | None, str | None]:
    """The global pooling and its power; or the name of a class that no network here has."""
    found = [name for name in modules if name.rpartition(".")[2] in _POOLING_NAMES]
    # A head's pooling is nearest to the root and comes last; a backbone's may be left over from its ImageNet code.
    in_head = [name for name in found if f"{name.rpartition('.')[0]}.layer4".lstrip(".") not in modules]
    if not found:
        return None, None, None
    name = min(
        in_head or found, key=lambda name: (name.count("."), _POOLING_NAMES.index(name.rpartition(".")[2]))
    )
    kind = modules[name].qualified_name.rpartition(".")[2]
    if kind == "Identity" and len(found) == 1:
        return None, None, None
    if kind not in _POOLINGS:
        return None, None, f"a global pooling of the class {kind}"
    state = states.get(name, {})
    outputs = state.get("output_size", 1)
    if kind.startswith("Adaptive") and outputs not in (1, (1, 1)):
        return None, None, f"a global pooling to {outputs}"
    power = state.get("p")
    gem_p = _number(power, f"{name}.p") if _POOLINGS[kind] == "gem" and power is not None else None
    return _POOLINGS[kind], gem_p, None


def _side(value: object) -> int | None:
    """3 of 3 or (3, 3); None of anything else."""
    if isinstance(value, tuple) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    return value if isinstance(value, int) else None


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise CheckpointError(f"{what} is {value!r}, expected a positive number. The file may be damaged.")
    return float(value)
