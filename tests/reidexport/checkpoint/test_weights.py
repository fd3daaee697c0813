"""Every layout in which weights are found, pickled modules, and what a damaged or a wrong file is called."""

import pickle
import random
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from reidexport.checkpoint.loading import (
    load_checkpoint,
    model_from_checkpoint,
)
from reidexport.checkpoint.pickle_reader import LEGACY_MAGIC
from reidexport.checkpoint.weights import read_weights
from reidexport.errors import CheckpointError
from reidexport.models.baseline import BaselineArchitecture
from tests.standins import checkpoints, pickles
from tests.standins.state_dicts import Load, Weights, adam_state, fast_reid, prefixed, refusal

LAYOUTS: dict[str, tuple[Callable[[Weights], object], str]] = {
    "plain": (lambda weights: weights, "state dict"),
    "OrderedDict": (OrderedDict, "state dict"),
    "module.": (lambda weights: prefixed(weights, "module."), "state dict"),
    "module.module.": (lambda weights: prefixed(weights, "module.module."), "state dict"),
    "model": (lambda weights: {"model": weights, "epoch": 3}, "state dict under 'model'"),
    "state_dict": (lambda weights: {"state_dict": weights}, "state dict under 'state_dict'"),
    "net": (lambda weights: {"net": prefixed(weights, "module.")}, "state dict under 'net'"),
    "model_state_dict": (lambda weights: {"model_state_dict": weights}, "state dict under 'model_state_dict'"),
    "module": (lambda weights: {"module": weights}, "state dict under 'module'"),
    "torchreid": (
        lambda weights: {
            "state_dict": weights, "epoch": 60, "rank1": np.float32(0.948), "optimizer": adam_state(weights),
            "scheduler": {"milestones": {60: 1}, "last_epoch": 60},
        },
        "state dict under 'state_dict'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout(layout: str, load: Load, osnet: Weights) -> None:
    """The weights are found bit for bit wherever training programs put them."""
    wrap, words = LAYOUTS[layout]
    checkpoint = load(wrap(osnet))
    assert (checkpoint.family, checkpoint.layout) == ("torchreid", words)
    assert checkpoint.architecture == BaselineArchitecture(
        "osnet_x0_25", last_stride=None, neck="fc", feature_dim=512, num_classes=10
    )
    assert torch.equal(checkpoint.state_dict["backbone.conv1.conv.weight"], osnet["conv1.conv.weight"])
    assert torch.equal(checkpoint.state_dict["neck.0.weight"], osnet["fc.0.weight"])
    assert model_from_checkpoint(checkpoint).classifier is None
    assert checkpoint.summary == f"torchreid osnet_x0_25, neck fc, 512-d feature, 10 classes ({words})"


def test_safetensors(tmp_path: Path, osnet: Weights) -> None:
    """A safetensors file holds the same checkpoint."""
    path = tmp_path / "model.safetensors"
    save_file(dict(osnet), path)
    checkpoint = load_checkpoint(path)
    assert (checkpoint.layout, checkpoint.architecture.backbone) == ("safetensors", "osnet_x0_25")
    assert torch.equal(checkpoint.state_dict["backbone.conv1.conv.weight"], osnet["conv1.conv.weight"])


def test_safetensors_lose_their_prefix_too(tmp_path: Path, osnet: Weights) -> None:
    """DataParallel's prefix is dropped whatever the container."""
    path = tmp_path / "model.safetensors"
    save_file({f"module.{key}": tensor.contiguous() for key, tensor in osnet.items()}, path)
    assert load_checkpoint(path).architecture.backbone == "osnet_x0_25"


def test_fast_reid_layout(load: Load, resnet18: Weights) -> None:
    """fast-reid's Checkpointer file: model, optimizer, schedulers, metric; its mean and std buffers are dropped."""
    content = {
        "model": fast_reid(resnet18),
        "optimizer": {"state": {}, "param_groups": [{"lr": 3.5e-4, "params": [0]}]},
        "lr_sched": {"last_epoch": 59},
        "warmup_sched": {"last_epoch": 2000},
        "epoch": 59,
        "metric": np.float64(0.913),
    }
    checkpoint = load(content)
    assert checkpoint.architecture == BaselineArchitecture(
        "resnet18", stem_pool="ceil", feature_dim=512, num_classes=10, neck="bnneck"
    )
    assert checkpoint.preprocess.resize == "bicubic"
    assert torch.equal(checkpoint.state_dict["neck.running_var"], resnet18["bottleneck.running_var"])
    assert not [key for key in checkpoint.state_dict if key.startswith(("pixel", "heads"))]


def test_optimizer_state_is_named(load: Load, osnet: Weights) -> None:
    """An optimizer's state dict is called that, and the model's file is asked for."""
    message = refusal(load, adam_state(osnet))
    assert "this is an optimizer's state, not the model. Pass the model's file of the same epoch" in message
    assert "NAME_model_N.pth, not NAME_optimizer_N.pth" in message


@pytest.mark.parametrize("zipped", [True, False])
def test_optimizer_object_is_named(zipped: bool, tmp_path: Path) -> None:
    """A whole pickled optimizer, as ignite's ModelCheckpoint wrote it, is called that."""
    path = tmp_path / "resnet50_optimizer_120.pth"
    torch.save(torch.optim.Adam([nn.Parameter(torch.ones(3))]), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        CheckpointError, match=r"this is a pickled optimizer \(torch\.optim\.adam\.Adam\), not the model"
    ):
        load_checkpoint(path)


def test_center_loss_is_named(load: Load) -> None:
    """The centers of the center loss are called that, with their shape, as a state dict and as a module."""
    centers = nn.Module()
    centers.centers = nn.Parameter(torch.randn(751, 2048))
    for content in (centers.state_dict(), centers):
        message = refusal(load, content)
        assert "these are the centers of the center loss, of shape [751, 2048], not the model" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.ones(3)], "holds list, expected a dict of tensors or a module"),
        (torch.ones(3), "holds Tensor, expected a dict of tensors or a module"),
        ({}, "holds no tensors (its keys: nothing)"),
        (
            {"epoch": 3, "lr": 0.1},
            "holds no tensors (its keys: epoch, lr). Expected a state dict or one under 'model'",
        ),
        ({"model": {"a": 1}}, "holds no tensors (its keys: a)"),
    ],
)
def test_content_without_weights(content: object, words: str, load: Load) -> None:
    """What holds no weights is said to hold none, with what it does hold."""
    assert words in refusal(load, content)


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("last_stride", [1, 2])
@pytest.mark.parametrize("stem_relu", [False, True])
def test_pickled_module(last_stride: int, stem_relu: bool, zipped: bool, tmp_path: Path) -> None:
    """Of a pickled module whose classes are lost, weights, last stride and stem ReLU are recovered."""
    path = tmp_path / "resnet18_model_120.pth"
    with checkpoints.lost_classes() as model_class:
        model = model_class(18, last_stride, stem_relu)
        torch.save(model, path, _use_new_zipfile_serialization=zipped)
        wanted = {key: value.clone() for key, value in model.state_dict().items()}
    assert "modeling.baseline" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        torch.load(path, weights_only=False)
    weights = read_weights(path)
    assert weights.state_dict.keys() == wanted.keys()
    assert all(torch.equal(weights.state_dict[key], value) for key, value in wanted.items())
    assert weights.layout == "pickled module modeling.baseline.Baseline"
    checkpoint = load_checkpoint(path)
    assert checkpoint.family == "reid-strong-baseline"
    assert checkpoint.architecture == BaselineArchitecture(
        "resnet18", last_stride=last_stride, stem_relu=stem_relu, feature_dim=512, num_classes=10  # type: ignore[arg-type]
    )  # fmt: skip
    told = ("last_stride", "stem_relu", "stem_pool", "pooling", "batch_norm_eps")
    assert {checkpoint.origins[name] for name in told} == {"read"}
    assert [text.split()[0] for text in checkpoint.assumed] == ["input", "mean", "std", "RGB", "bilinear"]


@pytest.mark.parametrize("wrap", ["data parallel", "twice", "in a dict"])
def test_wrapped_pickled_module(wrap: str, tmp_path: Path) -> None:
    """DataParallel, once or twice, and a dict around the module hide neither its weights nor its strides."""
    path = tmp_path / "model.pth"
    with checkpoints.lost_classes() as model_class:
        model = model_class(18, 2, stem_relu=False)
        wrapped: Any = {"model": model, "epoch": 120} if wrap == "in a dict" else nn.DataParallel(model)
        torch.save(nn.DataParallel(wrapped) if wrap == "twice" else wrapped, path)
        wanted = model.state_dict()
    weights = read_weights(path)
    assert all(torch.equal(weights.state_dict[key], value) for key, value in wanted.items())
    assert (weights.module.last_stride, weights.module.stem_relu) == (2, False)
    assert load_checkpoint(path).architecture.last_stride == 2


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_pickled_module_without_weights(zipped: bool, tmp_path: Path) -> None:
    """A pickled object that holds no tensors is refused by the name of its class."""
    path = tmp_path / "model.pth"
    torch.save(nn.ReLU(), path, _use_new_zipfile_serialization=zipped)
    assert "holds a pickled torch.nn.modules.activation.ReLU, which has no weights" in pickles.refused(path)


def test_old_parameters_are_read(tmp_path: Path) -> None:
    """``torch.nn.parameter.Parameter`` called with its data, as torch 0.3 pickled it, gives the tensor."""
    path = tmp_path / "model.pth"
    state = pickles.tensor_pickle()[2:-1].replace(
        b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_tensor\n"
    )
    pickles.write_zip(path, pickles.whole(state), {"0": struct.pack("<4f", 1, 2, 3, 4)})
    assert read_weights(path).state_dict["conv1.weight"].tolist() == [1, 2, 3, 4]


def _module(children: dict[str, bytes], memo: int) -> bytes:
    """The instructions for a stand-in with the given sub-modules, kept in the memo."""
    items = b"".join(pickles.plain(name) + child for name, child in children.items())
    state = b"}(" + pickles.plain("_modules") + b"}(" + items + b"u" + b"u"
    return pickles.build(pickles.call(pickles.named("lost", "Net")), state) + b"r" + struct.pack("<I", memo)


def test_module_graph_that_multiplies(tmp_path: Path) -> None:
    """Forty shared modules that stand for 2^40 paths are refused, not walked."""
    path = tmp_path / "model.pth"
    body, padding = b"", b"".join(pickles.plain("padding") + b"0" for _ in range(9))
    for level in range(40):
        child = b"j" + struct.pack("<I", 100 + level - 1)
        body += padding + _module({"a": child, "b": child} if level else {}, 100 + level) + b"0"
    pickles.write_zip(path, pickles.whole(body + b"j" + struct.pack("<I", 139)))
    assert "has more than 100000 parts, which no model has" in pickles.refused(path)


def test_module_that_contains_itself(tmp_path: Path) -> None:
    """A module that is its own child is refused."""
    path = tmp_path / "model.pth"
    module = pickles.call(pickles.named("lost", "Net")) + b"q\x05"
    state = b"}(" + pickles.plain("_modules") + b"}(" + pickles.plain("self") + b"h\x05" + b"u" + b"u"
    pickles.write_zip(path, pickles.whole(pickles.build(module, state)))
    assert "nested too deep at self.self.self." in pickles.refused(path)


@pytest.mark.parametrize(
    "state", [{"_modules": 3}, {"_parameters": [1, 2]}, {"_buffers": {5: 6}}, [1], None, {1: 2}]
)
def test_module_with_a_senseless_state(state: object, tmp_path: Path) -> None:
    """A stand-in whose state is not a module's is refused with words, whatever it holds instead."""
    path = tmp_path / "model.pth"
    pickles.write_zip(
        path, pickles.whole(pickles.build(pickles.call(pickles.named("lost", "Net")), pickles.plain(state)))
    )
    message = pickles.refused(path)
    assert "which has no weights" in message or "its parts are not those of a model" in message


def small_files(folder: Path) -> list[Path]:
    """Three small valid files: zip and legacy state dicts, and a pickled module."""
    torch.manual_seed(0)
    paths = [folder / name for name in ("zip.pth", "legacy.pth", "module.pth")]
    weights = {"conv1.weight": torch.randn(4, 3, 3, 3), "bn1.bias": torch.randn(4), "count": torch.tensor(3)}
    torch.save({"model": weights, "epoch": 3}, paths[0])
    torch.save({"model": weights, "epoch": 3}, paths[1], _use_new_zipfile_serialization=False)
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), paths[2])
    return paths


@pytest.mark.parametrize("index", [0, 1, 2], ids=["zip", "legacy", "module"])
def test_cut_file(index: int, tmp_path: Path) -> None:
    """A file cut anywhere is refused, and the message says that it may be cut."""
    path = small_files(tmp_path)[index]
    whole_file = path.read_bytes()
    assert read_weights(path).state_dict
    for length in {*range(0, len(whole_file), 37), *range(12), len(whole_file) - 1}:
        path.write_bytes(whole_file[:length])
        message = pickles.refused(path)
        assert any(words in message for words in ("cut", "empty", "not a checkpoint")), message


@pytest.mark.parametrize("index", [0, 1, 2], ids=["zip", "legacy", "module"])
def test_mutated_file(index: int, tmp_path: Path) -> None:
    """200 seeded mutations of a valid file either load or are refused; nothing else happens, and little memory goes."""
    path = small_files(tmp_path)[index]
    original = path.read_bytes()
    rng = random.Random(index)
    with pickles.little_memory():
        for _ in range(200):
            data = bytearray(original)
            for _ in range(rng.choice((1, 1, 2, 8))):
                position = rng.randrange(len(data))
                kind = rng.randrange(5)
                if kind == 0:
                    data[position] ^= 1 << rng.randrange(8)
                elif kind == 1:
                    data[position] = rng.randrange(256)
                elif kind == 2:
                    data[position : position + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f"))
                elif kind == 3:
                    del data[position : position + rng.randrange(1, 9)]
                else:
                    data[position:position] = rng.randbytes(rng.randrange(1, 9))
            path.write_bytes(data)
            pickles.loaded_or_refused(path)


def test_every_byte_of_the_pickle_flipped(tmp_path: Path) -> None:
    """Each byte of a zip file's pickle, inverted in turn, gives a file that loads or is refused."""
    source, path = small_files(tmp_path)[2], tmp_path / "flipped.pth"
    with zipfile.ZipFile(source) as archive:
        folder = archive.namelist()[0].partition("/")[0]
        data_pkl = archive.read(f"{folder}/data.pkl")
        records = {
            name.removeprefix(f"{folder}/data/"): archive.read(name)
            for name in archive.namelist()
            if name.startswith(f"{folder}/data/")
        }
    with pickles.little_memory():
        for position in range(len(data_pkl)):
            damaged = bytearray(data_pkl)
            damaged[position] ^= 0xFF
            pickles.write_zip(path, bytes(damaged), records)
            try:
                read_weights(path)
            except CheckpointError:
                continue


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_memo_index_cannot_claim_memory(zipped: bool, tmp_path: Path) -> None:
    """A memo index of 2^27, one flipped bit away from a valid one, does not allocate two gigabytes."""
    path = tmp_path / "model.pth"
    data_pkl = b"\x80\x02}r" + struct.pack("<I", 2**27) + b"."
    if zipped:
        pickles.write_zip(path, data_pkl)
    else:
        path.write_bytes(pickles.legacy_bytes(data_pkl))
    with pickles.little_memory():
        assert "holds no tensors" in pickles.refused(path)


@pytest.mark.parametrize(
    "opcode", [b"\x96", b"\x8e", b"\x8d"], ids=["BYTEARRAY8", "BINBYTES8", "BINUNICODE8"]
)
def test_string_length_cannot_claim_memory(opcode: bytes, tmp_path: Path) -> None:
    """A string that claims eight gigabytes in a file of fifty bytes is refused before they are allocated."""
    path = tmp_path / "model.pth"
    pickles.write_zip(path, b"\x80\x05" + opcode + struct.pack("<Q", 2**33) + b".")
    with pickles.little_memory():
        assert "not a whole file of torch.save" in pickles.refused(path)


@pytest.mark.parametrize("record", ["archive/data.pkl", "archive/data/0", "archive/byteorder"])
def test_compressed_record_cannot_claim_memory(record: str, tmp_path: Path) -> None:
    """A record that would inflate to half a gigabyte is refused before it is read."""
    path = tmp_path / "model.pth"
    records = {
        "archive/data.pkl": pickles.tensor_pickle(elements=2**27, size=(2**27,)),
        "archive/byteorder": b"little",
    }
    records[record] = bytes(2**29)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    del records
    with pickles.little_memory():
        assert "its records claim more bytes than the file has" in pickles.refused(path)


@pytest.mark.parametrize("method", [8, 9, 12, 14, 93, 99])
def test_damaged_compression_method(method: int, tmp_path: Path) -> None:
    """A flipped compression method makes zlib, bz2 or lzma fail; that is a damaged file, not a crash."""
    path = small_files(tmp_path)[0]
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        start = 0
        while (start := data.find(signature, start)) >= 0:
            data[start + offset : start + offset + 2] = struct.pack("<H", method)
            start += 4
    path.write_bytes(data)
    assert "not a whole file of torch.save" in pickles.refused(path)


def script_module(path: Path) -> None:
    """A TorchScript archive, as torch.jit.save lays it out."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py", "version"):
            archive.writestr(f"model/{name}", pickle.dumps(()))


def ordinary_zip(path: Path) -> None:
    """A zip archive of something else."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


WRONG_FILES: dict[str, tuple[bytes | Callable[[Path], None], str]] = {
    "empty": (b"", "the file is empty. Copy or download it again"),
    "one byte": (b"\x80", "not a whole file of torch.save"),
    "zeros": (bytes(1000), "not a checkpoint: neither torch.save's nor safetensors' format"),
    "random": (random.Random(0).randbytes(5000), "not a checkpoint: neither torch.save's nor safetensors' format"),
    "random after 80": (b"\x80\x02" + random.Random(1).randbytes(5000), "not a whole file of torch.save"),
    "random after PK": (b"PK\x03\x04" + random.Random(2).randbytes(5000), "not a whole file of torch.save"),
    "text": (b"conv1.weight = 3\n", "neither torch.save's nor safetensors' format (it begins b'conv1.we')"),
    "html": (b"<!DOCTYPE html><html>Sign in</html>", "this is a web page, not the checkpoint itself"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "this is a Git LFS pointer"),
    "pickle of numbers": (pickle.dumps([1, 2, 3], 2), "no magic number of torch.save"),
    "pickle of an array": (pickle.dumps(np.zeros(3), 4), "no magic number of torch.save"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(60), "this is a gzip file. Unpack it and pass the checkpoint in it"),
    "safetensors, cut": (struct.pack("<Q", 500) + b'{"a": {"dtype"', "not a whole safetensors file"),
    "safetensors, huge header": (struct.pack("<Q", 2**62) + b'{"a": 1}', "not a whole safetensors file"),
    "TorchScript": (script_module, "this is a TorchScript archive (torch.jit.save), a program and not a checkpoint"),
    "zip": (ordinary_zip, "this is a zip archive, but not one of torch.save: it holds no data.pkl"),
    "legacy of a list": (
        pickles.legacy_bytes(pickle.dumps([1], 2)), "holds list, expected a dict of tensors or a module"
    ),
    "legacy of an empty dict": (pickles.legacy_bytes(pickle.dumps({}, 2)), "holds no tensors (its keys: nothing)"),
    "legacy of numbers": (pickles.legacy_bytes(pickle.dumps({"epoch": 3}, 2)), "holds no tensors (its keys: epoch)"),
    "legacy without its system": (pickle.dumps(LEGACY_MAGIC, 2), "EOFError|pickle exhausted"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_wrong_file(kind: str, tmp_path: Path) -> None:
    """A file that is no checkpoint is refused with words that say what it is or what to do."""
    path = tmp_path / "model.pth"
    content, words = WRONG_FILES[kind]
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    with pickles.little_memory():
        message = pickles.refused(path)
    assert any(part in message for part in words.split("|")), message


def test_folder_and_missing_file(tmp_path: Path) -> None:
    """A folder and a missing file are errors about the path, not tracebacks of open()."""
    missing = tmp_path / "missing.pth"
    assert pickles.refused(missing) == f"{missing}: there is no such file"
    assert pickles.refused(tmp_path).startswith(f"{tmp_path}: this is a folder, and no file in it ends in")
