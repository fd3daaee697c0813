"""Which architecture do these weights belong to? Found by comparing names and shapes with every known one."""

from dataclasses import replace
from fnmatch import fnmatchcase

from torch import Tensor

from reidexport.checkpoint.families import backbone_shapes
from reidexport.checkpoint.family import Family, Shapes, candidate, candidates_of
from reidexport.errors import CheckpointError
from reidexport.models.baseline import BaselineArchitecture, Neck, backbone_channels, is_backbone

# Another network of the same depth has up to a third of the tensors (resnext50 and resnet50): it is not a near miss.
_LEAST_SIMILARITY = 0.5


def identify(state_dict: dict[str, Tensor], family: Family, arch: str | None) -> BaselineArchitecture:
    """Find the architecture whose tensors have exactly these names and shapes.

    Args:
        state_dict: tensors under this project's names (``family.rename_keys``).
        family: whose conventions to assume for what weights do not show.
        arch: restrict the search to this backbone.

    Raises:
        CheckpointError: none fits; the message names the nearest one and the first tensor that differs.
    """
    found = {key: tuple(tensor.shape) for key, tensor in state_dict.items() if key.startswith("backbone.")}
    candidates = [each for each in candidates_of(family, found) if arch in (None, each.backbone)]
    if not candidates and arch and _has(family, arch):
        candidates = [candidate(family, arch)]
    if not candidates:
        raise CheckpointError(
            f"--arch {arch}: {family.name} has no such backbone; it has {', '.join(family.backbones)}"
        )
    nearest = max(candidates, key=lambda architecture: _similarity(found, backbone_shapes(architecture)))
    problem = first_difference(found, backbone_shapes(nearest))
    if problem is not None:
        share = _similarity(found, backbone_shapes(nearest))
        if share < _LEAST_SIMILARITY and arch is None:
            raise CheckpointError(
                f"its tensors are named as {family.name}'s, but are those of none of its backbones that are read: "
                f"{', '.join(family.backbones)}. Export it with its own code (torch.onnx.export) and use the ONNX "
                "file, with --size, --mean and --std as its project normalizes images."
            )
        raise CheckpointError(
            f"no known {family.name} architecture has these weights. Nearest: {describe(nearest)} "
            f"({share:.0%} of the tensors agree). First difference: {problem}. "
            "If you know the backbone, pass --arch to compare with that one."
        )
    return with_head(nearest, state_dict)


def _has(family: Family, arch: str) -> bool:
    """Whether a family lists a backbone, be it by a name with a wildcard."""
    names = [name for name in family.backbones if fnmatchcase(arch, name)]
    return any("*" not in name for name in names) or (bool(names) and is_backbone(arch))


def describe(architecture: BaselineArchitecture) -> str:
    """A backbone's name for messages."""
    extras = {" with non-local blocks": architecture.non_local, " with JPM": architecture.jpm}
    return architecture.backbone + "".join(text for text, is_there in extras.items() if is_there)


def first_difference(found: Shapes, expected: Shapes) -> str | None:
    """The first tensor, in the network's order, that is missing, unexpected or of another shape; or None."""
    for key, shape in expected.items():
        if key not in found:
            return f"{key} of shape {list(shape)} is missing"
        if found[key] != shape:
            return f"{key} has shape {list(found[key])}, expected {list(shape)}"
    extra = next((key for key in found if key not in expected), None)
    return None if extra is None else f"{extra} of shape {list(found[extra])} is unexpected"


def _similarity(found: Shapes, expected: Shapes) -> float:
    agreeing = sum(found.get(key) == shape for key, shape in expected.items())
    return agreeing / max(len(found.keys() | expected.keys()), 1)


def with_head(architecture: BaselineArchitecture, state_dict: dict[str, Tensor]) -> BaselineArchitecture:
    """Complete the backbone's architecture by the pooling, neck and classifier that the tensors show."""
    neck, feature_dim = _neck_of(state_dict), backbone_channels(architecture)
    reduction = state_dict.get("reduction.weight")
    if reduction is not None:
        if reduction.shape[1:] != (feature_dim,):
            raise CheckpointError(
                f"fcneck takes {list(reduction.shape[1:])} features, the backbone gives {[feature_dim]}"
            )
        feature_dim = reduction.shape[0]
    weight = state_dict.get("neck.weight", state_dict.get("neck.0.weight"))
    if weight is not None:
        taken = weight.shape if neck == "bnneck" else weight.shape[1:]
        if taken != (feature_dim,):
            raise CheckpointError(
                f"the neck takes {list(taken)} features, the backbone gives {[feature_dim]}"
            )
        feature_dim = weight.shape[0]
    classifier = state_dict.get("classifier.weight")
    if classifier is not None and tuple(classifier.shape[1:]) != (feature_dim,):
        raise CheckpointError(
            f"classifier.weight has shape {list(classifier.shape)}, expected [classes, {feature_dim}]: it does not "
            f"belong to this {architecture.backbone} with a {feature_dim}-d feature"
        )
    return replace(
        architecture,
        pooling="gem" if "pool.p" in state_dict else architecture.pooling,
        neck=neck,
        reduced=reduction is not None,
        feature_dim=feature_dim,
        num_classes=0 if classifier is None else classifier.shape[0],
    )


def _neck_of(state_dict: dict[str, Tensor]) -> Neck:
    if "neck.weight" in state_dict:
        return "bnneck"
    if "neck.0.weight" not in state_dict:
        return "none"
    return "fc" if "neck.0.bias" in state_dict else "reduction-bnneck"
