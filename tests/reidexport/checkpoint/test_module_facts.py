"""What a pickled module tells beyond its weights."""

from typing import Any

import pytest

from reidexport.checkpoint.module_facts import ModuleFacts, module_facts
from reidexport.checkpoint.pickle_reader import StandIn
from reidexport.errors import CheckpointError


def part(qualified_name: str, **state: Any) -> StandIn:
    """A stand-in as unpickling makes it."""
    made = type("Part", (StandIn,), {"qualified_name": qualified_name})()
    made.state = state
    return made


def resnet(**more: StandIn) -> dict[str, StandIn]:
    """The parts of a small network under ``base.``, and more of them by their names with __ for dots."""
    conv = part("torch.nn.modules.conv.Conv2d", stride=(1, 1))
    block = part("lost.BasicBlock")
    return {"base": part("lost.ResNet"), "base.layer4.0": block, "base.layer4.0.conv1": conv} | {
        name.replace("__", "."): each for name, each in more.items()
    }


def max_pool(kernel: int, padding: int, *, ceil: bool, stride: int = 2) -> StandIn:
    """A MaxPool2d."""
    name = "torch.nn.modules.pooling.MaxPool2d"
    return part(name, kernel_size=kernel, stride=stride, padding=padding, dilation=1, ceil_mode=ceil)


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        (max_pool(3, 1, ceil=False), "padded"),
        (max_pool(3, 1, ceil=True), "padded-ceil"),
        (max_pool(3, 0, ceil=False), "valid"),
        (max_pool(3, 0, ceil=True), "ceil"),
        (max_pool(2, 0, ceil=False), "2x2"),
    ],
)
def test_stem_pool_is_read(pool: StandIn, expected: str) -> None:
    """Kernel, padding and ceil_mode of the stem's pooling name it."""
    assert module_facts(resnet(base__maxpool=pool)).stem_pool == expected


@pytest.mark.parametrize(
    ("kind", "state", "expected"),
    [
        ("torch.nn.modules.pooling.AdaptiveAvgPool2d", {"output_size": 1}, ("avg", None)),
        ("torch.nn.modules.pooling.AdaptiveMaxPool2d", {"output_size": (1, 1)}, ("max", None)),
        ("fastreid.layers.pooling.GeneralizedMeanPooling", {"p": 3.0}, ("gem", 3.0)),
        ("fastreid.layers.pooling.GeneralizedMeanPoolingP", {}, ("gem", None)),
        ("fastreid.layers.pooling.FastGlobalAvgPool", {}, ("avg", None)),
    ],
)
def test_global_pooling_is_read(kind: str, state: dict[str, Any], expected: tuple[str, float | None]) -> None:
    """The head's pooling counts, not the one that a backbone keeps from its ImageNet code."""
    unused = part("torch.nn.modules.pooling.AdaptiveAvgPool2d", output_size=(1, 1))
    facts = module_facts(resnet(base__avgpool=unused, gap=part(kind, **state)))
    assert (facts.pooling, facts.gem_p) == expected


def test_eps_is_read() -> None:
    """One eps of all BatchNorms is told; different ones are named."""
    norm = "torch.nn.modules.batchnorm.BatchNorm2d"
    parts = resnet(base__bn1=part(norm, eps=1e-3), bottleneck=part(norm, eps=1e-3))
    assert module_facts(parts).batch_norm_eps == 1e-3
    parts["bottleneck"] = part(norm, eps=1e-5)
    facts = module_facts(parts)
    assert facts.batch_norm_eps is None
    assert facts.unknown == (("batch_norm_eps", "BatchNorms with different eps (1e-05, 0.001)"),)


@pytest.mark.parametrize(
    ("parts", "unknown"),
    [
        ({"gap": part("fastreid.layers.pooling.GlobalAvgMaxPool")}, "a global pooling of the class GlobalAvgMaxPool"),
        ({"gap": part("torch.nn.AdaptiveAvgPool2d", output_size=(6, 1))}, "a global pooling to (6, 1)"),
        (
            {"base__maxpool": max_pool(5, 2, ceil=False, stride=3)},
            "a stem pooling of 5x5, stride 3, padding 2, ceil_mode False",
        ),
    ],
)  # fmt: skip
def test_what_no_network_here_has_is_named(parts: dict[str, StandIn], unknown: str) -> None:
    """A pooling without an equal here is said in words, so that nothing is assumed instead."""
    assert [words for _, words in module_facts(resnet(**parts)).unknown] == [unknown]


def test_nothing_is_told_of_a_module_without_stages() -> None:
    """Parts that are not those of a ResNet tell nothing."""
    assert module_facts({"conv": part("torch.nn.modules.conv.Conv2d", stride=(2, 2))}) == ModuleFacts()


@pytest.mark.parametrize("eps", [0, -1.0, "1e-5", None, float("inf")])
def test_eps_that_is_no_positive_number(eps: object) -> None:
    """A damaged setting is refused by its name and value."""
    with pytest.raises(CheckpointError, match=r"bn's eps is .*, expected a positive number"):
        module_facts({"bn": part("torch.nn.modules.batchnorm.BatchNorm2d", eps=eps)})
