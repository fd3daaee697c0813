"""Read what ``torch.save`` wrote without running any of it.

A pickle is a program: its REDUCE instruction calls whatever global it names. Here the only callables
that a pickle can reach build tensors; every other global becomes an inert :class:`StandIn` that keeps
the arguments and state it is given. A pickled ``nn.Module`` whose classes nobody has thus opens as a tree
of stand-ins with real tensors in it, and ``os.system`` opens as a stand-in that was "called" in vain.
"""

import collections
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from reidexport.errors import CheckpointError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

STORAGE_DTYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
# A checkpoint has no use for these: one that names them was made to attack whoever loads it.
CODE_MODULES = frozenset(
    (
        *("os", "posix", "nt", "subprocess", "multiprocessing", "sys", "shutil", "socket", "importlib"),
        *("runpy", "pty", "ctypes", "webbrowser", "code"),
    )
)
CODE_BUILTINS = frozenset(("eval", "exec", "compile", "open", "__import__", "breakpoint", "input"))
# What a damaged or hostile stream makes the unpickler raise.
STREAM_ERRORS = (
    pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, ValueError, TypeError, RuntimeError,
    ImportError, MemoryError, OverflowError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


class StandIn:
    """What a pickled object of any class but a tensor becomes: its constructor arguments and its state, inert."""

    qualified_name = ""

    def __new__(cls, *args: object, **kwargs: object) -> "StandIn":
        """Keep the arguments of a constructor or call; do nothing with them."""
        stand_in = object.__new__(cls)
        stand_in.args, stand_in.state = args, {}
        return stand_in

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.args: tuple[object, ...]
        self.state: Any

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __call__(self, *args: object, **kwargs: object) -> "StandIn":
        """Be called in vain: the object may have been a function."""
        return self

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        """Accept and drop an element: the object may have been a list."""

    def extend(self, items: object) -> None:
        """Accept and drop elements: the object may have been a list."""

    def add(self, item: object) -> None:
        """Accept and drop an element: the object may have been a set."""


class _Storage:
    """Bytes of one storage and the dtype its tensors have."""

    def __init__(self, data: Tensor, dtype: torch.dtype) -> None:
        self.data, self.dtype = data, dtype


def _tensor(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    return torch.as_strided(storage.data.view(storage.dtype), size, stride, offset)


def _parameter(data: Tensor, *_: object) -> Tensor:
    return data


_TENSOR_BUILDERS = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch.nn.parameter", "Parameter"): _parameter,
    ("torch", "Size"): tuple,
}


class _InertUnpickler(pickle.Unpickler):
    """Resolves globals to tensor builders, storage dtypes or stand-ins, and storages through ``read_storage``."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream, encoding="latin1")
        self.code_names: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        """A tensor builder, a dtype, or a class of stand-ins; never the thing that was named."""
        if (module, name) in _TENSOR_BUILDERS:
            return _TENSOR_BUILDERS[module, name]
        if module in ("torch", "torch.storage", "torch.cuda") and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        in_builtins = module in ("builtins", "__builtin__") and name in CODE_BUILTINS
        if in_builtins or module.partition(".")[0] in CODE_MODULES:
            self.code_names.append(f"{module}.{name}")
        qualified_name = f"{module}.{name}"
        return type(name.rpartition(".")[2] or "StandIn", (StandIn,), {"qualified_name": qualified_name})

    def load_without_code(self) -> object:
        """Unpickle one object; refuse it when it names something that runs code."""
        loaded = self.load()
        if self.code_names:
            raise CheckpointError(
                f"it would call {', '.join(sorted(set(self.code_names)))} when loaded by torch.load. Nothing was "
                "run, and the file was refused. Get the weights from a source that you trust."
            )
        return loaded


class _ZipUnpickler(_InertUnpickler):
    """Storages are records of the zip archive that torch 1.6 and later write."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(archive.open(f"{folder}/data.pkl"))  # type: ignore[arg-type]
        self.archive, self.folder = archive, folder
        self.storages: dict[str, _Storage] = {}

    def persistent_load(self, pid: Any) -> _Storage:
        """The storage of a tensor, read from its record."""
        _, dtype, key, _, num_elements = pid
        if key not in self.storages:
            data = bytearray(self.archive.read(f"{self.folder}/data/{key}"))
            _check_size(len(data), num_elements * dtype.itemsize, f"storage {key}")
            self.storages[key] = _Storage(_bytes_tensor(data), dtype)
        return self.storages[key]


class _LegacyUnpickler(_InertUnpickler):
    """Storages come after the pickle (torch before 1.6): made empty here, filled by ``read_storages``."""

    def __init__(self, stream: BinaryIO, file_size: int) -> None:
        super().__init__(stream)
        self.file_size = file_size
        self.storages: dict[str, _Storage] = {}

    def persistent_load(self, pid: Any) -> Any:
        """The storage of a tensor, still empty."""
        if pid[0] == "module":  # the class of a module, with its source text
            return pid[1]
        _, dtype, key, _, num_elements, view = pid
        if view is not None:
            raise CheckpointError("it holds storage views, a form that torch stopped writing in 0.4")
        if key not in self.storages:
            num_bytes = num_elements * dtype.itemsize
            if num_bytes > self.file_size:
                raise CheckpointError(
                    f"storage {key} claims {num_bytes} bytes in a file of {self.file_size}: it is cut"
                )
            self.storages[key] = _Storage(torch.empty(num_bytes, dtype=torch.uint8), dtype)
        return self.storages[key]

    def read_storages(self, stream: BinaryIO, keys: list[str]) -> None:
        """Fill the storages from the bytes behind the pickles, in the order of ``keys``."""
        for key in keys:
            storage = self.storages[key]
            (num_elements,) = struct.unpack("<q", stream.read(8))
            data = bytearray(stream.read(num_elements * storage.dtype.itemsize))
            _check_size(len(data), storage.data.numel(), f"storage {key}")
            storage.data.copy_(_bytes_tensor(data))


def read_torch_file(path: Path) -> object:
    """Read a file that ``torch.save`` wrote, in its zip or its older form, running nothing.

    Returns:
        The saved object: dicts, lists, numbers and strings as they are, tensors as CPU tensors,
        everything else as :class:`StandIn`.

    Raises:
        CheckpointError: the file is cut, damaged, not from ``torch.save``, or names code to run.
    """
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        return _read_legacy(path)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except STREAM_ERRORS as error:
        raise CheckpointError(
            f"{path}: not a whole file of torch.save ({type(error).__name__}: {error}). It may be cut or damaged: "
            "compare its size with the original's and copy it again."
        ) from error


def _read_zip(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if any(name.endswith("/constants.pkl") for name in names):
            raise CheckpointError(
                "this is a TorchScript archive, not a checkpoint. Save model.state_dict() of the original model."
            )
        if len(pickles) != 1:
            raise CheckpointError("this is a zip archive, but not one of torch.save: it holds no data.pkl")
        folder = pickles[0].removesuffix("/data.pkl")
        if f"{folder}/byteorder" in names and archive.read(f"{folder}/byteorder") != b"little":
            raise CheckpointError(
                "it was saved on a big-endian machine. Load and save it again on a little-endian one."
            )
        return _ZipUnpickler(archive, folder).load_without_code()


def _read_legacy(path: Path) -> object:
    with path.open("rb") as stream:
        header = _LegacyUnpickler(stream, path.stat().st_size)
        if header.load() != LEGACY_MAGIC:
            raise pickle.UnpicklingError("no magic number of torch.save")
        for _ in ("protocol version", "system information"):
            _LegacyUnpickler(stream, path.stat().st_size).load()
        unpickler = _LegacyUnpickler(stream, path.stat().st_size)
        loaded = unpickler.load_without_code()
        keys = _LegacyUnpickler(stream, path.stat().st_size).load()
        unpickler.read_storages(stream, keys)
        return loaded


def _bytes_tensor(data: bytearray) -> Tensor:
    return torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def _check_size(found: int, expected: int, what: str) -> None:
    if found != expected:
        raise CheckpointError(f"{what} has {found} bytes, expected {expected}: the file is cut or damaged")
