"""Which set of weights in a file is used, and under which names, whatever wrote it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from reidexport.checkpoint.weights import read_weights
from reidexport.errors import CheckpointError
from tests.standins.state_dicts import Load, Weights, adam_state, fast_reid, prefixed, refusal, without

WRAPPED: dict[str, tuple[Callable[[Weights], object], str]] = {
    "compiled": (lambda weights: prefixed(weights, "_orig_mod."), ""),
    "compiled, then parallel": (lambda weights: prefixed(weights, "module._orig_mod."), ""),
    "parallel, then compiled": (lambda weights: prefixed(weights, "_orig_mod.module."), ""),
    "Lightning's model": (lambda weights: {"state_dict": prefixed(weights, "model.")}, "state_dict"),
    "Lightning's net": (lambda weights: {"state_dict": prefixed(weights, "net.")}, "state_dict"),
    "Lightning's backbone": (lambda weights: {"state_dict": prefixed(weights, "backbone.")}, "state_dict"),
    "Lightning, compiled": (lambda weights: {"state_dict": prefixed(weights, "model._orig_mod.")}, "state_dict"),
    "nested": (lambda weights: {"model": {"state_dict": weights}, "epoch": 3}, "model.state_dict"),
    "EMA only": (lambda weights: {"ema": weights}, "ema"),
    "EMA beside nothing": (lambda weights: {"model": None, "ema": weights}, "ema"),
    "params_ema": (lambda weights: {"params_ema": weights}, "params_ema"),
    "weights": (lambda weights: {"weights": weights}, "weights"),
    "network": (lambda weights: {"network": weights}, "network"),
    "a key of its own": (lambda weights: {"reid": weights, "optimizer": adam_state(weights)}, "reid"),
    "a list of pairs": (lambda weights: list(weights.items()), ""),
    "arrays": (lambda weights: {key: tensor.numpy() for key, tensor in weights.items()}, ""),
    "losses beside it": (
        lambda weights: {**prefixed(weights, "module."), "criterion.centers": torch.zeros(10, 512)}, ""
    ),
    "counters of thop": (
        lambda weights: {**weights, "total_ops": torch.zeros(1), "conv1.total_params": torch.zeros(1)}, ""
    ),
    "counter of an average": (lambda weights: {**prefixed(weights, "module."), "n_averaged": torch.tensor(3)}, ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRAPPED)
def test_wrapped_weights_are_found(kind: str, tmp_path: Path, osnet: Weights) -> None:
    """Every tensor of the network, no other, and the same numbers under the project's names, whatever wraps them."""
    wrap, key = WRAPPED[kind]
    path = tmp_path / "model.pth"
    torch.save(wrap(osnet), path)
    weights = read_weights(path)
    assert (weights.key, weights.other_keys) == (key, ())
    assert weights.state_dict.keys() == osnet.keys()
    assert all(torch.equal(weights.state_dict[name], tensor) for name, tensor in osnet.items())


@pytest.mark.parametrize(
    "keys", [("model", "model_ema"), ("state_dict", "state_dict_ema"), ("params", "params_ema")]
)
def test_the_average_is_used_unless_told(keys: tuple[str, str], tmp_path: Path, osnet: Weights) -> None:
    """Of raw and EMA weights the EMA's are used, as timm does, and either can be asked for by its key."""
    raw, averaged = keys
    path = tmp_path / "model.pth"
    torch.save({raw: {key: tensor + 1 for key, tensor in osnet.items()}, averaged: osnet}, path)
    wanted = osnet["conv1.conv.weight"]
    for key, offset in ((None, 0), (averaged, 0), (raw, 1)):
        weights = read_weights(path, key)
        assert torch.equal(weights.state_dict["conv1.conv.weight"], wanted + offset)
        assert weights.layout == f"state dict under {weights.key!r}"
        assert {weights.key, *weights.other_keys} == set(keys)


def test_the_choice_of_weights_is_assumed_or_told(load: Load, osnet: Weights) -> None:
    """Taking the average unasked is listed as assumed, with the option that sets it; where it is told, it is not."""
    content = {"model": osnet, "model_ema": osnet}
    words = "weights under 'model_ema', not those under 'model' (set with --weights)"
    assert load(content).assumed[-1] == words
    told = load(content, weights="model")
    assert told.layout == "state dict under 'model'"
    assert not any("weights" in text for text in told.assumed)
    assert not any("weights" in text for text in load({"model": osnet}).assumed)


def test_classifiers_of_imagenet_are_doubted(load: Load, osnet: Weights) -> None:
    """Torchreid's files for ImageNet have the names of its re-identification networks: 1000 classes raise the doubt."""
    classifier = {"classifier.weight": torch.ones(1000, 512), "classifier.bias": torch.ones(1000)}
    assert "never trained for re-identification" in load({**osnet, **classifier}).fact_lines[-1]
    assert "re-identification" not in load(osnet).fact_lines[-1]


def test_an_average_without_statistics_is_not_chosen(load: Load, osnet: Weights) -> None:
    """An EMA over the parameters alone, which lacks those of the BatchNorms, is never used unasked."""
    averaged = {key: tensor for key, tensor in osnet.items() if "running" not in key}
    message = refusal(load, {"model": osnet, "ema": {"shadow": averaged}})
    assert "holds several sets of weights: model (" in message
    assert "ema.shadow (" in message
    assert "Choose one with --weights KEY" in message


def test_several_networks_are_listed(tmp_path: Path, osnet: Weights) -> None:
    """Of a student and a teacher none is better known; both are listed, and each can be chosen."""
    path = tmp_path / "model.pth"
    torch.save({"student": osnet, "teacher": osnet, "epoch": 3}, path)
    with pytest.raises(
        CheckpointError, match=r"several sets of weights: student \(\d+ tensors\), teacher \("
    ):
        read_weights(path)
    assert read_weights(path, "teacher").key == "teacher"


def test_a_key_that_the_file_lacks(tmp_path: Path, osnet: Weights) -> None:
    """--weights with an unknown key lists the known ones; where there is nothing to choose, it says that."""
    path = tmp_path / "model.pth"
    torch.save({"model": osnet, "model_ema": osnet}, path)
    with pytest.raises(
        CheckpointError, match="--weights ema: it holds no such weights; it holds model, model_ema"
    ):
        read_weights(path, "ema")
    torch.save(osnet, path)
    with pytest.raises(
        CheckpointError, match="--weights ema: it holds no such weights; it holds one set of weights"
    ):
        read_weights(path, "ema")
    for content in (nn.Linear(2, 2), {"format": "reidexport.checkpoint.v1", "state_dict": osnet}):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match="--weights ema: it holds one set of weights only"):
            read_weights(path, "ema")
    save_file(dict(osnet), path)
    with pytest.raises(CheckpointError, match="Leave --weights out"):
        read_weights(path, "ema")


def test_a_backbone_alone_keeps_its_prefix(load: Load, resnet18: Weights) -> None:
    """``backbone.*`` without a head could be of several projects: it is refused, and not taken for torchreid's."""
    alone = {key: tensor for key, tensor in fast_reid(resnet18).items() if key.startswith("backbone.")}
    assert "no known project names its tensors like this (first: backbone." in refusal(load, alone)


def test_an_unknown_network_keeps_its_names(load: Load, osnet: Weights) -> None:
    """A common prefix is dropped only where the names of a known project remain."""
    message = refusal(load, {"model.stem.weight": torch.ones(3), "model.stem.bias": torch.ones(3)})
    assert "(first: model.stem.weight)" in message
    assert load(prefixed(without(osnet, "classifier"), "a.b.")).architecture.num_classes == 0


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8", "u1"])
def test_arrays_are_read_exactly(dtype: str, protocol: int, tmp_path: Path) -> None:
    """NumPy arrays of every type, in C and Fortran order, 0-d and empty, are the numbers that were saved."""
    path = tmp_path / "model.pth"
    values = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    arrays = {
        "c": values,
        "f": np.asfortranarray(values),
        "scalar": values[1, 2, 3:].reshape(()),
        "none": values[:0],
    }
    torch.save(arrays, path, pickle_protocol=protocol)
    read = read_weights(path).state_dict
    assert read.keys() == arrays.keys()
    assert all(np.array_equal(read[key].numpy(), array) for key, array in arrays.items())
    assert all(read[key].numpy().dtype == array.dtype for key, array in arrays.items())


def test_big_endian_arrays_are_refused(load: Load) -> None:
    """An array whose bytes are in another machine's order is refused, not read as wrong numbers."""
    assert "a NumPy array of type >f4" in refusal(load, {"conv1.weight": np.ones(3, ">f4")})


UNUSUAL: dict[str, tuple[Callable[[torch.Tensor], object], str]] = {
    "quantized": (
        lambda weight: torch.quantize_per_tensor(weight, 0.01, 0, torch.qint8),
        "conv1.conv.weight is a quantized tensor"
    ),
    "sparse": (lambda weight: weight.to_sparse(), "conv1.conv.weight is a sparse tensor. Save it dense"),
    "8-bit floats": (
        lambda weight: weight.to(torch.float8_e4m3fn),
        "conv1.conv.weight holds 8-bit floating-point numbers (float8_e4m3fn), which are not read",
    ),
    "integers": (
        lambda weight: weight.to(torch.int8), "conv1.conv.weight is of type torch.int8. The checkpoint is quantized"
    ),
    "without numbers": (lambda weight: weight.to("meta"), "conv1.conv.weight is a tensor of an unusual kind"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_tensors_are_named(kind: str, load: Load, osnet: Weights) -> None:
    """Quantized, sparse and 8-bit float tensors are refused by name, with what to do; none is left out in silence."""
    change, words = UNUSUAL[kind]
    assert words in refusal(load, {**osnet, "conv1.conv.weight": change(osnet["conv1.conv.weight"])})


@pytest.mark.parametrize(
    "name", ["fc.0.SCB", "fc.0.weight.absmax", "fc.0.weight.quant_state.bitsandbytes__nf4"]
)
def test_quantized_layers_are_named(name: str, load: Load, osnet: Weights) -> None:
    """What bitsandbytes puts beside its weights tells that they are quantized."""
    message = refusal(load, {**osnet, name: torch.ones(3)})
    assert (
        f"{name} belongs to a quantized layer. The checkpoint is quantized. Pass the float checkpoint"
        in message
    )


def test_eight_bit_floats_of_safetensors_are_named(tmp_path: Path) -> None:
    """8-bit floats are refused whatever the container."""
    path = tmp_path / "model.safetensors"
    save_file({"conv1.weight": torch.ones(2, 2).to(torch.float8_e5m2)}, path)
    with pytest.raises(
        CheckpointError, match=r"conv1.weight holds 8-bit floating-point numbers \(float8_e5m2\)"
    ):
        read_weights(path)
