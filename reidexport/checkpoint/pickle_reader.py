"""Read what ``torch.save`` wrote without running any of it.

A pickle is a program: its REDUCE instruction calls whatever global it names. Here the only callables
that a pickle can reach build tensors; every other global becomes an inert :class:`StandIn` that keeps
the arguments and state it is given. A pickled ``nn.Module`` whose classes are lost thus opens as a tree
of stand-ins with real tensors in it, and ``os.system`` opens as a stand-in that was "called" in vain.
"""

import collections
import io
import lzma
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import torch
from torch import Tensor

from reidexport.errors import CheckpointError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
BIG_ENDIAN = "it was saved on a big-endian machine. Load and save it again on a little-endian one."

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
    # Of quantized tensors, which are refused by name (tensor_forms.py).
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
}
# A checkpoint has no use for these: one that names them was made to attack whoever loads it.
CODE_MODULES = frozenset(
    (
        *("os", "posix", "nt", "subprocess", "multiprocessing", "sys", "shutil", "socket", "importlib"),
        *("runpy", "pty", "ctypes", "webbrowser", "code", "pdb", "timeit", "_posixsubprocess"),
        *("marshal", "pickle", "_pickle"),
    )
)
CODE_BUILTINS = frozenset(("eval", "exec", "compile", "open", "__import__", "breakpoint", "input"))
CODE_CALLS = frozenset(
    ("torch.hub.load", "types.CodeType", "types.FunctionType", "io.open", "_io.open", "codecs.open")
)
MAX_KEY_PARTS = 100  # names of tensors are texts
# What a damaged or hostile stream makes the unpickler raise.
STREAM_ERRORS = (
    pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, ValueError, TypeError, RuntimeError,
    ImportError, MemoryError, OverflowError, OSError, struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip


class StandIn:
    """What a pickled object of any class but a tensor becomes: its constructor arguments and its state, inert."""

    qualified_name = ""
    args: tuple[object, ...]
    state: Any

    def __new__(cls, *args: object, **kwargs: object) -> "StandIn":
        """Keep the arguments of a constructor or call; do nothing with them."""
        stand_in = object.__new__(cls)
        stand_in.args, stand_in.state = args, {}
        return stand_in

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __call__(self, *args: object, **kwargs: object) -> "StandIn":
        """Be called in vain: the object may have been a function."""
        return self

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        """Accept and drop an element or several: the object may have been a list or a set."""

    extend = add = append


class _Storage:
    """Bytes of one storage and the dtype its tensors have."""

    def __init__(self, data: Tensor, dtype: torch.dtype) -> None:
        self.data, self.dtype = data, dtype

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it sets the state of a storage")


def _tensor(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    return torch.as_strided(storage.data.view(storage.dtype), size, stride, offset)


def _parameter(data: Tensor, *_: object) -> Tensor:
    return data


def _ordered_dict(*pairs: Iterable[tuple[Any, object]]) -> dict[Any, object]:
    made: dict[Any, object] = collections.OrderedDict()
    for key, value in chain.from_iterable(pairs):  # Python 2 gives one list of them, Python 3 none
        _check_key(key)
        made[key] = value
    return made


_TENSOR_BUILDERS = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch.nn.parameter", "Parameter"): _parameter,
    ("torch", "Size"): tuple,
}


def _check_key(key: object) -> None:
    """Refuse a key whose hash takes for ever, or all of the C stack: tuples nest, and may hold one part many times."""
    parts = key if isinstance(key, tuple | frozenset) else (key,)
    if len(parts) > MAX_KEY_PARTS or any(
        isinstance(part, tuple | frozenset) or (isinstance(part, int) and part.bit_length() > 64)
        for part in parts
    ):
        raise pickle.UnpicklingError("a key of nested tuples, or a very long one")


def _with_checked_keys(instruction: bytes, keys: slice) -> Callable[[Any], None]:
    """The unpickler's own step for an instruction, behind a look at the keys where they are on the stack."""
    step = pickle._Unpickler.dispatch[instruction[0]]

    def checked(unpickler: Any) -> None:
        for key in unpickler.stack[keys]:
            _check_key(key)
        step(unpickler)

    return checked


class _InertUnpickler(pickle._Unpickler):
    """Resolves globals to tensor builders, storage dtypes or stand-ins; each storage is made once.

    The unpickler in Python, as that in C allocates what a memo index claims, and hashes whatever is a key.
    """

    dispatch: ClassVar = {
        **pickle._Unpickler.dispatch,
        pickle.SETITEM[0]: _with_checked_keys(pickle.SETITEM, slice(-2, -1)),
        pickle.SETITEMS[0]: _with_checked_keys(pickle.SETITEMS, slice(None, None, 2)),
        pickle.DICT[0]: _with_checked_keys(pickle.DICT, slice(None, None, 2)),
        pickle.ADDITEMS[0]: _with_checked_keys(pickle.ADDITEMS, slice(None)),
        pickle.FROZENSET[0]: _with_checked_keys(pickle.FROZENSET, slice(None)),
    }
    # It would allocate what the stream claims; torch does not write it.
    del dispatch[pickle.BYTEARRAY8[0]]

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream, encoding="latin1")
        self.stream = stream
        self.code_names: list[str] = []
        self.storages: dict[str, _Storage] = {}
        self.stand_ins: dict[str, type[StandIn]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """A tensor builder, a dtype, or a class of stand-ins; never the thing that was named."""
        if (module, name) in _TENSOR_BUILDERS:
            return _TENSOR_BUILDERS[module, name]
        if module in ("torch", "torch.storage", "torch.cuda") and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        qualified_name = f"{module}.{name}"
        in_builtins = module in ("builtins", "__builtin__") and name in CODE_BUILTINS
        # "torch" and "os.system" reach a module through another one.
        modules = {module.partition(".")[0], *name.split(".")[:-1]}
        if in_builtins or qualified_name in CODE_CALLS or modules & CODE_MODULES:
            self.code_names.append(qualified_name)
        if qualified_name not in self.stand_ins:
            short, facts = name.rpartition(".")[2] or "StandIn", {"qualified_name": qualified_name}
            self.stand_ins[qualified_name] = type(short, (StandIn,), facts)
        return self.stand_ins[qualified_name]

    def get_extension(self, code: int) -> None:
        """Refuse a code, which stands for an object that this process has registered, past ``find_class``."""
        raise pickle.UnpicklingError(f"extension code {code}")

    def load_without_code(self) -> object:
        """Unpickle one object; refuse it when it names something that runs code, whole or not."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of escape sequences in damaged strings
                return self.load()
        finally:
            if self.code_names:
                raise CheckpointError(
                    f"it would call {', '.join(sorted(set(self.code_names)))} when loaded by torch.load. Nothing "
                    "was run, and the file was refused. Get the weights from a source that you trust."
                )


class _ZipUnpickler(_InertUnpickler):
    """Storages are records of the zip archive that torch 1.6 and later write."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{folder}/data.pkl")))
        self.archive, self.folder = archive, folder

    def persistent_load(self, pid: Any) -> _Storage:
        """The storage of a tensor, read from its record."""
        _, dtype, key, _, num_elements = pid
        _check_storage(key, num_elements)
        if key not in self.storages:
            data = bytearray(self.archive.read(f"{self.folder}/data/{key}"))
            _check_size(len(data), num_elements * dtype.itemsize, f"storage {key}")
            self.storages[key] = _Storage(_bytes_tensor(data), dtype)
        return self.storages[key]


class _LegacyUnpickler(_InertUnpickler):
    """Storages come after the pickle (torch before 1.6): made empty here, filled by ``read_storages``."""

    def persistent_load(self, pid: Any) -> Any:
        """The storage of a tensor, still empty."""
        if pid[0] == "module":  # the class of a module, with its source text
            return pid[1]
        _, dtype, key, _, num_elements, view = pid
        if view is not None:
            raise CheckpointError("it holds storage views, a form that torch stopped writing in 0.4")
        _check_storage(key, num_elements)
        if key not in self.storages:
            num_bytes = num_elements * dtype.itemsize
            file_size = os.fstat(self.stream.fileno()).st_size
            if num_bytes > file_size:
                raise CheckpointError(
                    f"storage {key} claims {num_bytes} bytes in a file of {file_size}: it is cut"
                )
            self.storages[key] = _Storage(torch.empty(num_bytes, dtype=torch.uint8), dtype)
        return self.storages[key]

    def read_storages(self, keys: list[str]) -> None:
        """Fill the storages from the bytes behind the pickles, in the order of ``keys``."""
        if unfilled := self.storages.keys() - set(keys):
            raise CheckpointError(
                f"the bytes of storage {min(map(str, unfilled))} are missing: the file is damaged"
            )
        for key in keys:
            storage = self.storages[key]
            (num_elements,) = struct.unpack("<q", self.stream.read(8))
            num_bytes = storage.data.numel()
            _check_size(num_elements * storage.dtype.itemsize, num_bytes, f"storage {key}")
            data = bytearray(self.stream.read(num_bytes))
            _check_size(len(data), num_bytes, f"storage {key}")
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
        return _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    except STREAM_ERRORS as error:
        raise CheckpointError(
            f"not a whole file of torch.save ({type(error).__name__}: {error}). It may be cut or damaged: "
            "compare its size with the original's and copy it again."
        ) from error


def _read_zip(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if sum(info.file_size for info in archive.infolist()) > path.stat().st_size:
            raise CheckpointError(
                "its records claim more bytes than the file has: it is damaged, or not from torch.save, which "
                "does not compress"
            )
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError(
                f"this is a zip archive, but not one of torch.save: it holds {len(pickles)} data.pkl, expected 1"
            )
        folder = pickles[0].removesuffix("/data.pkl")
        if f"{folder}/byteorder" in names and archive.read(f"{folder}/byteorder") != b"little":
            raise CheckpointError(BIG_ENDIAN)
        return _ZipUnpickler(archive, folder).load_without_code()


def _read_legacy(path: Path) -> object:
    with path.open("rb") as stream:
        if _LegacyUnpickler(stream).load_without_code() != LEGACY_MAGIC:
            raise pickle.UnpicklingError("no magic number of torch.save")
        _LegacyUnpickler(stream).load_without_code()  # protocol version
        system = _LegacyUnpickler(stream).load_without_code()
        if isinstance(system, dict) and system.get("little_endian") is False:
            raise CheckpointError(BIG_ENDIAN)
        unpickler = _LegacyUnpickler(stream)
        loaded = unpickler.load_without_code()
        keys = _LegacyUnpickler(stream).load_without_code()
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise pickle.UnpicklingError("no list of storages")
        unpickler.read_storages(keys)
        return loaded


def _bytes_tensor(data: bytearray) -> Tensor:
    return torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def _check_storage(key: object, num_elements: object) -> None:
    if not isinstance(key, str) or not isinstance(num_elements, int):
        raise pickle.UnpicklingError("no name and size of a storage")


def _check_size(found: int, expected: int, what: str) -> None:
    if found != expected:
        raise CheckpointError(f"{what} has {found} bytes, expected {expected}: the file is cut or damaged")
