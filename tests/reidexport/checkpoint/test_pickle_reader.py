"""Hostile files, and tensors that lie: nothing in them runs, and whatever is wrong is a CheckpointError."""

import collections
import contextlib
import copyreg
import io
import marshal
import os
import pickle
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from reidexport.checkpoint.loading import load_checkpoint
from reidexport.checkpoint.pickle_reader import LEGACY_MAGIC, StandIn, read_torch_file
from reidexport.checkpoint.weights import read_weights
from tests.standins import checkpoints
from tests.standins.pickles import (
    build,
    call,
    legacy_bytes,
    little_memory,
    loaded_or_refused,
    named,
    plain,
    refused,
    tensor_pickle,
    whole,
    write_with_weights,
    write_zip,
)


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


_TWICE = b")" + b"2\x86" * 60  # an empty tuple in a tuple that holds it twice, and so on: 2^60 parts
_DEEP = b")" + b"\x85" * 200_000


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "body",
    [
        b"}" + _TWICE + b"Ns",
        b"}" + _DEEP + b"Ns",
        b"}(" + _TWICE + b"Nu",
        b"(" + _TWICE + b"Nd",
        b"\x8f(" + _TWICE + b"\x90",
        b"(" + _TWICE + b"\x91",
        call(named("collections", "OrderedDict"), b"]" + _TWICE + b"N\x86a"),
        tensor_pickle(elements=b"PLACE", view=b"N")[2:-1].replace(plain(b"PLACE"), _TWICE),
    ],
    ids=["SETITEM", "deep", "SETITEMS", "DICT", "ADDITEMS", "FROZENSET", "OrderedDict", "storage size"],
)
def test_nested_tuples_are_not_hashed(body: bytes, zipped: bool, tmp_path: Path) -> None:
    """Tuples of tuples, whose hash or text would take years or all of the stack, are refused as keys and sizes."""
    path = tmp_path / "model.pth"
    if zipped:
        write_zip(path, whole(body.replace(_TWICE + b"NtQ", _TWICE + b"tQ")), {"0": bytes(16)})
    else:
        path.write_bytes(legacy_bytes(whole(body), ("0",), bytes(24)))
    assert "UnpicklingError" in refused(path)


def test_list_of_storages_is_one_of_names(tmp_path: Path) -> None:
    """A legacy file whose list of storages holds something to hash instead of names is refused."""
    path = tmp_path / "model.pth"
    keys = whole(b"]" + _TWICE + b"a")
    path.write_bytes(
        legacy_bytes(tensor_pickle(view=b"N")).removesuffix(pickle.dumps([], 2)) + keys + bytes(24)
    )
    assert "no list of storages" in refused(path)


def test_a_class_is_made_once(tmp_path: Path) -> None:
    """A class that is named a hundred thousand times, in 5 bytes each, is not made as often."""
    path = tmp_path / "model.pth"
    twice = plain("module") + b"q\0" + plain("Name") + b"q\1]"
    write_zip(path, whole(twice + b"(" + b"h\0h\1\x93" * 100_000 + b"e"))
    with little_memory(100):
        assert "list" in refused(path)


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
