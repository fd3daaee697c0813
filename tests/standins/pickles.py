"""Pickles written by hand, in files as torch.save lays them out, and readers that must refuse them."""

import contextlib
import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from reidexport.checkpoint.pickle_reader import LEGACY_MAGIC
from reidexport.checkpoint.weights import read_weights
from reidexport.errors import CheckpointError


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
    from reidexport.checkpoint.loading import load_checkpoint  # late: the architectures take seconds

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
    from reidexport.checkpoint.loading import load_checkpoint

    with pytest.raises(CheckpointError) as by_checkpoint:
        load_checkpoint(path)
    with pytest.raises(CheckpointError) as by_weights:
        read_weights(path)
    assert str(by_checkpoint.value) == str(by_weights.value)
    assert str(path) in str(by_weights.value)
    return str(by_weights.value)
