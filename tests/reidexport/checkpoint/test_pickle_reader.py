"""Hostile, damaged and foreign files: nothing in them runs, and whatever is wrong is a CheckpointError."""

import collections
import contextlib
import copyreg
import io
import marshal
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reidexport.checkpoint.loading import load_checkpoint
from reidexport.checkpoint.pickle_reader import LEGACY_MAGIC, StandIn, read_torch_file
from reidexport.checkpoint.weights import read_weights
from reidexport.errors import CheckpointError
from reidexport.models.baseline import BaselineArchitecture
from tests.standins import checkpoints

# ── pickles written by hand ───────────────────────────────────────────────────────────────────────────────────


def named(module: str, name: str) -> bytes:
    """The instruction that pushes a global."""
    return f"c{module}\n{name}\n".encode()


def plain(value: object) -> bytes:
    """The instructions that push plain data."""
    return pickle.dumps(value, 3)[2:-1]


def call(function: bytes, *args: bytes) -> bytes:
    """The instructions that call a function."""
    return function + b"(" + b"".join(args) + b"tR"


def build(target: bytes, state: bytes) -> bytes:
    """The instructions that set an object's state."""
    return target + state + b"b"


def whole(body: bytes) -> bytes:
    """A pickle of one object."""
    return b"\x80\x04" + body + b"."


def write_zip(path: Path, data_pkl: bytes, records: dict[str, bytes] | None = None) -> None:
    """A file in torch.save's zip format with a pickle and storages of one's own."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data_pkl)
        archive.writestr("archive/byteorder", b"little")
        for key, data in (records or {}).items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", b"3\n")


def legacy_bytes(
    data_pkl: bytes, keys: object = (), storages: bytes = b"", little_endian: bool = True
) -> bytes:
    """A file in torch.save's older format with a pickle and storages of one's own."""
    system = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {}}
    header = b"".join(pickle.dumps(value, 2) for value in (LEGACY_MAGIC, 1001, system))
    return header + data_pkl + pickle.dumps(list(keys) if isinstance(keys, tuple) else keys, 2) + storages


def write_with_weights(path: Path, body: bytes, weights: dict[str, torch.Tensor]) -> None:
    """A whole checkpoint of torch.save in which one value is the given instructions."""
    buffer = io.BytesIO()
    torch.save({"model": weights, "epoch": "PLACEHOLDER"}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as archive:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("data.pkl"):
                placeholder = b"X\x0b\0\0\0PLACEHOLDER"
                assert data.count(placeholder) == 1
                data = data.replace(placeholder, body)
            archive.writestr(name, data)


def tensor_pickle(
    dtype: str = "FloatStorage", elements: object = 4, offset: object = 0,
    size: object = (4,), stride: object = (1,), view: bytes = b"",
) -> bytes:  # fmt: skip
    """A state dict of one tensor, each of whose numbers may be a lie; ``view`` is what legacy files add."""
    storage = (
        b"("
        + plain("storage")
        + named("torch", dtype)
        + plain("0")
        + plain("cpu")
        + plain(elements)
        + view
        + b"tQ"
    )
    hooks = call(named("collections", "OrderedDict"))
    tensor = call(
        named("torch._utils", "_rebuild_tensor_v2"),
        storage, plain(offset), plain(size), plain(stride), plain(False), hooks,
    )  # fmt: skip
    return whole(b"}(" + plain("conv1.weight") + tensor + b"u")


@contextlib.contextmanager
def little_memory(mib: int = 300) -> Iterator[None]:
    """Assert that a block's memory never rises by more than this."""
    peak = Path("/proc/self/clear_refs")
    if not peak.exists():
        yield
        return

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) // 1024

    peak.write_text("5")  # start measuring the peak anew
    before = status("VmRSS")
    yield
    assert status("VmHWM") - before < mib


def loaded_or_refused(path: Path) -> str:
    """Read a file both ways; anything but an answer or a CheckpointError fails the test."""
    messages = []
    for read in (read_weights, load_checkpoint):
        try:
            read(path)
        except CheckpointError as error:
            assert error.exit_status == 2
            assert str(path) in str(error)
            messages.append(str(error))
    return messages[0] if messages else ""


def refused(path: Path) -> str:
    """Read a file both ways, and return why it is refused."""
    with pytest.raises(CheckpointError) as by_checkpoint:
        load_checkpoint(path)
    with pytest.raises(CheckpointError) as by_weights:
        read_weights(path)
    assert str(by_checkpoint.value) == str(by_weights.value)
    assert str(path) in str(by_weights.value)
    return str(by_weights.value)


# ── payloads ──────────────────────────────────────────────────────────────────────────────────────────────────


def _commands(marker: Path) -> dict[str, tuple[bytes, str | None]]:
    """Payloads that make a marker file, and the call that a refusal must name (None: opened, inert)."""
    touch, source = plain(f"touch {marker}"), plain(f"open({str(marker)!r}, 'w')")
    os_module = call(named("builtins", "__import__"), plain("os"))
    imported = call(named("importlib", "import_module"), plain("os"))
    code = marshal.dumps(compile(f"open({str(marker)!r}, 'w')", "x", "exec"))
    inner = marker.with_name("inner.pkl")
    inner.write_bytes(whole(call(named("os", "system"), touch)))
    array = marker.with_name("inner.npy")
    array.write_bytes(whole(call(named("os", "system"), touch)))
    nested = io.BytesIO()
    torch.save(Touch(marker), nested)
    namespace = call(named("argparse", "Namespace"))
    return {
        "os.system": (call(named("os", "system"), touch), "os.system"),
        "posix.system": (call(named("posix", "system"), touch), "posix.system"),
        "exec": (call(named("builtins", "exec"), source), "builtins.exec"),
        "python 2's eval": (call(named("__builtin__", "eval"), source), "__builtin__.eval"),
        "eval": (call(named("builtins", "eval"), source), "builtins.eval"),
        "open": (call(named("builtins", "open"), plain(str(marker)), plain("w")), "builtins.open"),
        "io.open": (call(named("io", "open"), plain(str(marker)), plain("w")), "io.open"),
        "import": (call(call(named("builtins", "getattr"), os_module, plain("system")), touch), "builtins.__import__"),
        "Popen": (call(named("subprocess", "Popen"), plain(["touch", str(marker)])), "subprocess.Popen"),
        "call": (call(named("subprocess", "call"), plain(["touch", str(marker)])), "subprocess.call"),
        "run": (call(named("subprocess", "run"), plain(["touch", str(marker)])), "subprocess.run"),
        "partial": (call(call(named("functools", "partial"), named("os", "system"), touch)), "os.system"),
        "attrgetter": (
            call(call(call(named("operator", "attrgetter"), plain("system")), imported), touch),
            "importlib.import_module",
        ),
        "methodcaller": (
            call(call(named("operator", "methodcaller"), plain("system"), touch), os_module),
            "builtins.__import__",
        ),
        "dotted name": (b"\x8c\x05torch\x8c\x09os.system\x93(" + touch + b"tR", "torch.os.system"),
        "INST": (b"(" + touch + b"ios\nsystem\n", "os.system"),
        "OBJ": (b"(" + named("os", "system") + touch + b"o", "os.system"),
        "function from code": (
            call(
                call(
                    named("types", "FunctionType"),
                    call(named("marshal", "loads"), plain(code)),
                    call(named("builtins", "globals")),
                )
            ),
            "marshal.loads, types.FunctionType",
        ),
        "nested pickle": (call(named("pickle", "loads"), plain(inner.read_bytes())), "pickle.loads"),
        "nested pickle file": (
            call(named("_pickle", "load"), call(named("io", "open"), plain(str(inner)), plain("rb"))),
            "_pickle.load, io.open",
        ),
        "numpy.load": (call(named("numpy", "load"), plain(str(array)), plain(None), plain(True)), None),
        "torch storage": (call(named("torch.storage", "_load_from_bytes"), plain(nested.getvalue())), None),
        "tensor's rebuild": (
            call(
                named("torch._tensor", "_rebuild_from_type_v2"),
                named("os", "system"), named("builtins", "type"), b"(" + touch + b"t", plain(None),
            ),
            "os.system",
        ),
        "setstate by BUILD": (
            build(build(namespace, b"}(" + plain("__setstate__") + named("os", "system") + b"u"), touch),
            "os.system",
        ),
        "setstate of a dict": (
            build(
                build(
                    call(named("collections", "OrderedDict")),
                    b"}(" + plain("__setstate__") + named("os", "system") + b"u",
                ),
                touch,
            ),
            "os.system",
        ),
        "copyreg": (
            build(
                call(
                    named("copyreg", "_reconstructor"),
                    named("argparse", "Namespace"), named("builtins", "object"), plain(None),
                ),
                b"}(" + plain("run") + call(named("os", "system"), touch) + b"u",
            ),
            "os.system",
        ),
    }  # fmt: skip


class Touch:
    """An object that torch.save pickles as a call of os.system."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


PAYLOADS = [
    "os.system", "posix.system", "exec", "python 2's eval", "eval", "open", "io.open", "import", "Popen", "call", "run",
    "partial", "attrgetter", "methodcaller", "dotted name", "INST", "OBJ", "function from code", "nested pickle",
    "nested pickle file", "numpy.load", "torch storage", "tensor's rebuild", "setstate by BUILD", "setstate of a dict",
    "copyreg",
]  # fmt: skip


@pytest.fixture(scope="module")
def osnet_weights() -> dict[str, torch.Tensor]:
    """A whole torchreid state dict."""
    return checkpoints.golden_weights("tr_osnet_x0_25")


def test_every_payload_is_listed(tmp_path: Path) -> None:
    """The list that the tests below run over is the table of payloads."""
    assert list(_commands(tmp_path / "marker")) == PAYLOADS


@pytest.mark.parametrize("name", PAYLOADS)
def test_payload_works_where_it_is_not_stopped(name: str, tmp_path: Path) -> None:
    """Each payload does make its marker when Python's own unpickler reads it: the tests below test something."""
    marker = tmp_path / "marker"
    body = _commands(marker)[name][0].replace(b"c__builtin__\n", b"cbuiltins\n")
    loaded = None
    with contextlib.suppress(AttributeError):  # of what comes after the call
        loaded = pickle.loads(whole(body))
    if isinstance(loaded, subprocess.Popen):
        loaded.wait()
    assert marker.exists()


@pytest.mark.parametrize("container", ["bare", "zip", "legacy", "with weights"])
@pytest.mark.parametrize("name", PAYLOADS)
def test_payload_never_runs(
    name: str, container: str, tmp_path: Path, osnet_weights: dict[str, torch.Tensor]
) -> None:
    """No payload makes its marker, in whatever kind of file it lies; a dangerous one is refused by its name."""
    marker, path = tmp_path / "marker", tmp_path / "model.pth"
    body, call_name = _commands(marker)[name]
    if container == "bare":
        path.write_bytes(whole(body))
    elif container == "zip":
        write_zip(path, whole(body))
    elif container == "legacy":
        path.write_bytes(legacy_bytes(whole(body)))
    else:
        write_with_weights(path, body, osnet_weights)
    if call_name is not None:
        message = refused(path)
        for part in call_name.split(", "):
            assert part in message.partition("it would call ")[2]
        assert "when loaded by torch.load. Nothing was run, and the file was refused" in message
    elif container == "with weights":
        assert load_checkpoint(path).architecture.backbone == "osnet_x0_25"
    else:
        assert refused(path)
    assert not marker.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_reduce_payload_of_torch_save_never_runs(zipped: bool, tmp_path: Path) -> None:
    """An object with ``__reduce__``, saved by torch.save among real tensors, is refused and does not run."""
    marker, path = tmp_path / "marker", tmp_path / "model.pth"
    torch.save(
        {"model": {"conv1.weight": torch.ones(3)}, "hook": Touch(marker)},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    assert f"{os.system.__module__}.system" in refused(path)
    assert not marker.exists()


@pytest.mark.parametrize("part", [0, 1, 2, 4])
def test_payload_beside_the_object_never_runs(part: int, tmp_path: Path) -> None:
    """The legacy format's five pickles are all read without code: magic, version, system, object, keys."""
    marker, path = tmp_path / "marker", tmp_path / "model.pth"
    pickles = [pickle.dumps(value, 2) for value in (LEGACY_MAGIC, 1001, {"little_endian": True}, {}, [])]
    pickles[part] = whole(call(named("os", "system"), plain(f"touch {marker}")))
    path.write_bytes(b"".join(pickles))
    assert "it would call os.system" in refused(path)
    assert not marker.exists()


def test_payload_in_a_cut_pickle_is_named(tmp_path: Path) -> None:
    """A call that stands before the damage is named: the file is hostile, not only damaged."""
    path = tmp_path / "model.pth"
    path.write_bytes(b"\x80\x04" + call(named("os", "system"), plain("true")) + b"R.")
    assert "it would call os.system" in refused(path)


def test_registered_extension_codes_are_refused(tmp_path: Path) -> None:
    """An extension code, which would fetch a real object of this process past the unpickler, is refused."""
    marker, path = tmp_path / "marker", tmp_path / "model.pth"
    copyreg.add_extension("posix", "system", 201)
    try:
        pickle.loads(b"\x80\x02\x82\xc9.")  # fills copyreg's cache, as an application's own loads would
        write_zip(path, b"\x80\x02" + call(b"\x82\xc9", plain(f"touch {marker}")) + b".")
        assert "extension code 201" in refused(path)
    finally:
        copyreg.remove_extension("posix", "system", 201)
    assert not marker.exists()


def test_builders_keep_their_state(tmp_path: Path) -> None:
    """A file cannot change how later files are read by setting attributes of the functions that build tensors."""
    path, good = tmp_path / "bad.pth", tmp_path / "good.pth"
    torch.save({"conv1.weight": torch.arange(4.0)}, good)
    state = plain(None) + plain({"__defaults__": (0, (1,), (1,))}) + b"\x86"
    write_zip(path, whole(build(named("torch._utils", "_rebuild_tensor_v2"), state)))
    loaded_or_refused(path)
    path.unlink()
    write_zip(path, whole(build(named("collections", "OrderedDict"), state)))
    loaded_or_refused(path)
    loaded = read_torch_file(good)
    assert isinstance(loaded, dict)
    assert torch.equal(loaded["conv1.weight"], torch.arange(4.0))


# ── whole modules of classes that nobody has ──────────────────────────────────────────────────────────────────


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
    assert [text.split()[0] for text in checkpoint.assumed] == ["input"]


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
    assert (weights.last_stride, weights.stem_relu) == (2, False)
    assert load_checkpoint(path).architecture.last_stride == 2


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_pickled_module_without_weights(zipped: bool, tmp_path: Path) -> None:
    """A pickled object that holds no tensors is refused by the name of its class."""
    path = tmp_path / "model.pth"
    torch.save(nn.ReLU(), path, _use_new_zipfile_serialization=zipped)
    assert "holds a pickled torch.nn.modules.activation.ReLU, which has no weights" in refused(path)


def test_old_parameters_are_read(tmp_path: Path) -> None:
    """``torch.nn.parameter.Parameter`` called with its data, as torch 0.3 pickled it, gives the tensor."""
    path = tmp_path / "model.pth"
    state = tensor_pickle()[2:-1].replace(
        b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_tensor\n"
    )
    write_zip(path, whole(state), {"0": struct.pack("<4f", 1, 2, 3, 4)})
    assert read_weights(path).state_dict["conv1.weight"].tolist() == [1, 2, 3, 4]


def _module(children: dict[str, bytes], memo: int) -> bytes:
    """The instructions for a stand-in with the given sub-modules, kept in the memo."""
    items = b"".join(plain(name) + child for name, child in children.items())
    state = b"}(" + plain("_modules") + b"}(" + items + b"u" + b"u"
    return build(call(named("lost", "Net")), state) + b"r" + struct.pack("<I", memo)


def test_module_graph_that_multiplies(tmp_path: Path) -> None:
    """Forty shared modules that stand for 2^40 paths are refused, not walked."""
    path = tmp_path / "model.pth"
    body, padding = b"", b"".join(plain("padding") + b"0" for _ in range(9))
    for level in range(40):
        child = b"j" + struct.pack("<I", 100 + level - 1)
        body += padding + _module({"a": child, "b": child} if level else {}, 100 + level) + b"0"
    write_zip(path, whole(body + b"j" + struct.pack("<I", 139)))
    assert "has more than 100000 parts, which no model has" in refused(path)


def test_module_that_contains_itself(tmp_path: Path) -> None:
    """A module that is its own child is refused."""
    path = tmp_path / "model.pth"
    module = call(named("lost", "Net")) + b"q\x05"
    state = b"}(" + plain("_modules") + b"}(" + plain("self") + b"h\x05" + b"u" + b"u"
    write_zip(path, whole(build(module, state)))
    assert "nested too deep at self.self.self." in refused(path)


@pytest.mark.parametrize(
    "state", [{"_modules": 3}, {"_parameters": [1, 2]}, {"_buffers": {5: 6}}, [1], None, {1: 2}]
)
def test_module_with_a_senseless_state(state: object, tmp_path: Path) -> None:
    """A stand-in whose state is not a module's is refused with words, whatever it holds instead."""
    path = tmp_path / "model.pth"
    write_zip(path, whole(build(call(named("lost", "Net")), plain(state))))
    message = refused(path)
    assert "which has no weights" in message or "its parts are not those of a model" in message


# ── tensors ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_tensors_equal_those_of_torch_load(zipped: bool, tmp_path: Path) -> None:
    """Every dtype, strided and shared views, empty and 0-d tensors, and plain data load as torch.load loads them."""
    path = tmp_path / "model.pth"
    base = torch.arange(24, dtype=torch.float32)
    numbers = torch.tensor([[1.5, -2.0, 3.25], [0.0, 7.0, -0.5]])
    saved = {
        **{str(dtype): numbers.to(dtype) for dtype in (
            torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
            torch.int8, torch.bool,
        )},
        "uint8": torch.arange(5, dtype=torch.uint8),
        "shared": base,
        "same storage": base[4:20].view(4, 4),
        "strided": base.view(4, 6).t(),
        "every other": base[1::2],
        "channels last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(3.5),
        "parameter": nn.Parameter(torch.ones(2, 2)),
        "ordered": collections.OrderedDict(a=1, b="text", c=[1, 2.5, None, (True,)]),
    }  # fmt: skip
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    found, wanted = read_torch_file(path), torch.load(path, weights_only=True)
    assert isinstance(found, dict)
    assert found.keys() == wanted.keys()
    assert found.pop("ordered") == wanted.pop("ordered")
    for key, tensor in wanted.items():
        assert found[key].dtype == tensor.dtype
        assert found[key].stride() == tensor.stride()
        assert torch.equal(found[key], tensor)
    assert found["shared"].untyped_storage().data_ptr() == found["same storage"].untyped_storage().data_ptr()
    assert not found["parameter"].requires_grad


def test_objects_beside_the_weights_are_inert(tmp_path: Path, osnet_weights: dict[str, torch.Tensor]) -> None:
    """Numpy scalars, arrays, sets and functions beside the weights become stand-ins and do no harm."""
    path = tmp_path / "model.pth"
    extras = {
        "rank1": np.float32(0.9),
        "array": np.arange(3),
        "set": {1, 2},
        "range": range(3),
        "fn": os.path.join,
    }
    torch.save({"state_dict": osnet_weights, **extras}, path)
    loaded = read_torch_file(path)
    assert isinstance(loaded, dict)
    assert all(isinstance(loaded[key], StandIn | type) for key in extras)
    weights = read_weights(path).state_dict
    assert all(torch.equal(weights[key], value) for key, value in osnet_weights.items())


LIES = {
    "fewer bytes": {"elements": 5, "size": (5,)},
    "more bytes": {"elements": 3, "size": (3,)},
    "negative count": {"elements": -4},
    "text for a count": {"elements": "4"},
    "huge count": {"elements": 2**40},
    "count beyond 64 bits": {"elements": 2**70},
    "size beyond the storage": {"size": (5,)},
    "offset beyond the storage": {"offset": 1},
    "negative offset": {"offset": -1, "size": (2,)},
    "huge offset": {"offset": 2**62},
    "negative stride": {"stride": (-1,), "offset": 3},
    "negative size": {"size": (-4,)},
    "huge size": {"size": (2**62,)},
    "huge size without strides": {"size": (2**33,), "stride": (0,)},
    "huge product without strides": {"size": (2**20, 2**20), "stride": (0, 0)},
    "strides and sizes of different length": {"size": (2, 2)},
    "text for a size": {"size": "four"},
    "another dtype": {"dtype": "DoubleStorage"},
    "unknown dtype": {"dtype": "QuaternionStorage"},
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("lie", LIES)
def test_lying_tensor(lie: str, zipped: bool, tmp_path: Path) -> None:
    """A tensor whose counts, sizes, strides or offset are lies is refused without allocating what they claim."""
    path = tmp_path / "model.pth"
    data = struct.pack("<4f", 1, 2, 3, 4)
    if zipped:
        write_zip(path, tensor_pickle(**LIES[lie]), {"0": data})  # type: ignore[arg-type]
    else:
        pickled = tensor_pickle(view=b"N", **LIES[lie])  # type: ignore[arg-type]
        path.write_bytes(legacy_bytes(pickled, ("0",), struct.pack("<q", 4) + data))
    with little_memory():
        assert refused(path)


def test_truth_is_accepted(tmp_path: Path) -> None:
    """The tensor that the lies above are made from loads."""
    data = struct.pack("<4f", 1, 2, 3, 4)
    write_zip(tmp_path / "zip.pth", tensor_pickle(), {"0": data})
    (tmp_path / "legacy.pth").write_bytes(
        legacy_bytes(tensor_pickle(view=b"N"), ("0",), struct.pack("<q", 4) + data)
    )
    for path in tmp_path.iterdir():
        assert read_weights(path).state_dict["conv1.weight"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("keys", "count", "words"),
    [
        ((), 4, "the bytes of storage 0 are missing"),
        (("1",), 4, "the bytes of storage 0 are missing"),
        (("0", "1"), 4, "KeyError"),
        ({"0": 1}, 4, "no list of storages"),
        (("0",), 3, "storage 0 has 12 bytes, expected 16"),
        (("0",), 5, "storage 0 has 20 bytes, expected 16"),
        (("0",), -1, "storage 0 has -4 bytes, expected 16"),
        (("0",), 2**40, "storage 0 has 4398046511104 bytes, expected 16"),
    ],
)
def test_legacy_storage_table_that_lies(keys: object, count: int, words: str, tmp_path: Path) -> None:
    """A legacy file whose list of storages or their lengths do not fit is refused; none stays uninitialized."""
    path = tmp_path / "model.pth"
    data = struct.pack("<q4f", count, 1, 2, 3, 4)
    path.write_bytes(legacy_bytes(tensor_pickle(view=b"N"), keys, data))
    with little_memory():
        message = refused(path)
    assert words in message


def test_legacy_storage_views_are_refused(tmp_path: Path) -> None:
    """Views of storages, which torch 0.3 wrote, are named as what is not supported."""
    path = tmp_path / "model.pth"
    path.write_bytes(legacy_bytes(tensor_pickle(view=plain(("1", 0, 4))), ("0",)))
    assert "storage views, a form that torch stopped writing in 0.4" in refused(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_big_endian_files_are_refused(zipped: bool, tmp_path: Path) -> None:
    """Bytes in another machine's order are refused, not read as wrong numbers."""
    path = tmp_path / "model.pth"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", tensor_pickle())
            archive.writestr("archive/byteorder", b"big")
            archive.writestr("archive/data/0", struct.pack(">4f", 1, 2, 3, 4))
    else:
        data = struct.pack(">q4f", 4, 1, 2, 3, 4)
        path.write_bytes(legacy_bytes(tensor_pickle(view=b"N"), ("0",), data, little_endian=False))
    assert "it was saved on a big-endian machine" in refused(path)


def test_tensor_grown_by_its_setstate_is_refused(tmp_path: Path) -> None:
    """Tensor's own ``__setstate__``, which BUILD reaches, cannot be used to claim gigabytes."""
    path = tmp_path / "model.pth"
    tensor = tensor_pickle(elements=0, size=(0,))
    body = tensor[2:-1].removeprefix(b"}(" + plain("conv1.weight")).removesuffix(b"u")
    state = b"(" + body + plain(0) + plain((2**33,)) + plain((1,)) + b"t"
    write_zip(path, whole(b"}(" + plain("conv1.weight") + build(body, state) + b"u"), {"0": b""})
    with little_memory():
        assert refused(path)


def test_storage_state_is_refused(tmp_path: Path) -> None:
    """BUILD cannot exchange the bytes of a storage."""
    path = tmp_path / "model.pth"
    storage = (
        b"("
        + plain("storage")
        + named("torch", "FloatStorage")
        + plain("0")
        + plain("cpu")
        + plain(4)
        + b"tQ"
    )
    write_zip(path, whole(build(storage, plain({"data": 1}))), {"0": bytes(16)})
    assert "it sets the state of a storage" in refused(path)


# ── damage ────────────────────────────────────────────────────────────────────────────────────────────────────


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
        message = refused(path)
        assert any(words in message for words in ("cut", "empty", "not a checkpoint")), message


@pytest.mark.parametrize("index", [0, 1, 2], ids=["zip", "legacy", "module"])
def test_mutated_file(index: int, tmp_path: Path) -> None:
    """200 seeded mutations of a valid file either load or are refused; nothing else happens, and little memory goes."""
    path = small_files(tmp_path)[index]
    original = path.read_bytes()
    rng = random.Random(index)
    with little_memory():
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
            loaded_or_refused(path)


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
    with little_memory():
        for position in range(len(data_pkl)):
            damaged = bytearray(data_pkl)
            damaged[position] ^= 0xFF
            write_zip(path, bytes(damaged), records)
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
        write_zip(path, data_pkl)
    else:
        path.write_bytes(legacy_bytes(data_pkl))
    with little_memory():
        assert "memo index 134217728" in refused(path)


@pytest.mark.parametrize(
    "opcode", [b"\x96", b"\x8e", b"\x8d"], ids=["BYTEARRAY8", "BINBYTES8", "BINUNICODE8"]
)
def test_string_length_cannot_claim_memory(opcode: bytes, tmp_path: Path) -> None:
    """A string that claims eight gigabytes in a file of fifty bytes is refused before they are allocated."""
    path = tmp_path / "model.pth"
    write_zip(path, b"\x80\x05" + opcode + struct.pack("<Q", 2**33) + b".")
    with little_memory():
        assert "not a whole file of torch.save" in refused(path)


@pytest.mark.parametrize("record", ["archive/data.pkl", "archive/data/0", "archive/byteorder"])
def test_compressed_record_cannot_claim_memory(record: str, tmp_path: Path) -> None:
    """A record that would inflate to half a gigabyte is refused before it is read."""
    path = tmp_path / "model.pth"
    records = {
        "archive/data.pkl": tensor_pickle(elements=2**27, size=(2**27,)),
        "archive/byteorder": b"little",
    }
    records[record] = bytes(2**29)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    del records
    with little_memory():
        assert "its records claim more bytes than the file has" in refused(path)


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
    assert "not a whole file of torch.save" in refused(path)


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
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(60), "not a checkpoint"),
    "safetensors, cut": (struct.pack("<Q", 500) + b'{"a": {"dtype"', "not a whole safetensors file"),
    "safetensors, huge header": (struct.pack("<Q", 2**62) + b'{"a": 1}', "not a whole safetensors file"),
    "TorchScript": (script_module, "this is a TorchScript archive, not a checkpoint. Save model.state_dict()"),
    "zip": (ordinary_zip, "this is a zip archive, but not one of torch.save: it holds no data.pkl"),
    "legacy of a list": (legacy_bytes(pickle.dumps([1], 2)), "holds list, expected a dict of tensors or a module"),
    "legacy of an empty dict": (legacy_bytes(pickle.dumps({}, 2)), "holds no tensors (its keys: nothing)"),
    "legacy of numbers": (legacy_bytes(pickle.dumps({"epoch": 3}, 2)), "holds no tensors (its keys: epoch)"),
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
    with little_memory():
        message = refused(path)
    assert any(part in message for part in words.split("|")), message


def test_folder_and_missing_file(tmp_path: Path) -> None:
    """A folder and a missing file are errors about the path, not tracebacks of open()."""
    for path in (tmp_path, tmp_path / "missing.pth"):
        assert refused(path) == f"{path}: there is no such file"
