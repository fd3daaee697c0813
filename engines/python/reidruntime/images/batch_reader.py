"""Batches of images, read into the caller's memory while the caller works on those before.

``libreidruntime``, the C++ runtime, decodes and resizes a whole batch in one call, in threads of its own and without
the interpreter lock. It is used where the environment variable ``REIDRUNTIME_LIBRARY`` names it; otherwise images are
read one by one in Python. The pixels are the same to the bit.
"""

import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from ctypes import CDLL, POINTER, Structure, byref, c_char_p, c_int, c_size_t, c_void_p, sizeof
from itertools import islice
from typing import Any

import numpy as np

from reidruntime.artifact.manifest import Preprocess
from reidruntime.errors import ImageError, NotInstalledError, ReidExportError
from reidruntime.images.depth import Depth
from reidruntime.images.preprocess import EncodedImage, Image, describe_preprocessing, image_pixels
from reidruntime.images.resize import Image8

LIBRARY_VARIABLE = "REIDRUNTIME_LIBRARY"
LIBRARY_VERSION = "0.2.0"
_OK, _ERROR_IMAGE = 0, 3
# Two: while the rest of one batch is read, idle threads begin with the next.
_MIN_AT_ONCE = 2
_NICENESS = 10

# The positions of the images that could be read, their pixels (uint8, shape (n, height_px, width_px, 3)), and the
# errors of the others by position, in order.
ReadBatch = tuple[list[int], Image8, dict[int, ImageError]]


def read_ahead(
    images: Iterable[Image], size: int, reader: "PythonReader", memory: Callable[[int], Image8]
) -> Generator[ReadBatch, None, None]:
    """Read a stream of images in order, by worker threads, holding only a few batches of it in memory.

    The last batch may have fewer images than ``size``; ``memory`` makes what so many images are read into.
    """
    numbered = iter(enumerate(images))
    pending: deque[Future[ReadBatch]] = deque()
    at_once = reader.num_at_once(size)
    with ThreadPoolExecutor(at_once, "reidruntime", _lower_priority) as workers:
        try:
            while True:
                while len(pending) <= at_once and (batch := list(islice(numbered, size))):
                    pending.append(workers.submit(_read, batch, reader, memory))
                if not pending:
                    break
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _read(
    batch: list[tuple[int, Image]], reader: "PythonReader", memory: Callable[[int], Image8]
) -> ReadBatch:
    pixels = memory(len(batch))
    errors = reader.read(batch, pixels)
    good = [row for row, (index, _) in enumerate(batch) if index not in errors]
    if errors:
        pixels[: len(good)] = pixels[good]
    return [batch[row][0] for row in good], pixels[: len(good)], errors


def _lower_priority() -> None:
    """Lower the calling thread's priority, where threads have one.

    A network's threads wait for each other at every layer: one that a reading thread keeps from its core keeps all of
    them waiting.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


class PythonReader:
    """Reads the images of a batch one after the other; any number of threads may call it at once."""

    def __init__(self, preprocess: Preprocess, threads: int, depth: Depth = "refuse") -> None:
        self._preprocess = preprocess
        self._threads = threads
        self._depth = depth

    def read(self, batch: Sequence[tuple[int, Image]], out: Image8) -> dict[int, ImageError]:
        """Bring each image to the manifest's size and channel order.

        Args:
            batch: images, each with the number that error messages call an array by.
            out: uint8, shape (len(batch), height_px, width_px, 3), C-contiguous; row i receives image i.

        Returns:
            The errors of the images that cannot be read, by number, in order; what their rows hold is undefined.
        """
        errors = {}
        for (number, image), row in zip(batch, out, strict=True):
            try:
                row[...] = image_pixels(image, f"image {number}", self._preprocess, depth=self._depth)
            except ImageError as error:
                errors[number] = error
        return errors

    def num_at_once(self, batch_size: int) -> int:
        """How many batches to read at once, to keep all reading threads busy."""
        return self._threads

    def describe(self) -> str:
        """What decodes and resizes."""
        return describe_preprocessing()


class LibraryReader(PythonReader):
    """Reads a batch in one call of ``libreidruntime``; what it does not take, Pillow accepts or refuses."""

    def __init__(self, library: str, preprocess: Preprocess, threads: int, depth: Depth = "refuse") -> None:
        super().__init__(preprocess, threads, depth)
        self._library, self._path = _load(library), library
        options = _Options(
            size=sizeof(_Options),
            height_px=preprocess.height_px,
            width_px=preprocess.width_px,
            bicubic=preprocess.resize == "bicubic",
            bgr=preprocess.channel_order == "BGR",
            threads=max(threads - _MIN_AT_ONCE, 0) + 1,  # the other callers are threads, too
        )
        self._handle = c_void_p()
        self._check(self._library.reid_open_reader(byref(options), byref(self._handle)))
        # Not in a method close(): a thread may still be reading.
        weakref.finalize(self, self._library.reid_close_reader, self._handle)

    def read(self, batch: Sequence[tuple[int, Image]], out: Image8) -> dict[int, ImageError]:
        """See :meth:`PythonReader.read`.

        Raises:
            ReidExportError: memory or threads are short.
        """
        wanted = (len(batch), self._preprocess.height_px, self._preprocess.width_px, 3)
        if out.dtype != np.uint8 or out.shape != wanted or not out.flags.carray:
            raise ValueError(f"expected writable C-contiguous uint8 memory of shape {wanted}")
        images = (_Image * len(batch))()
        kept = [_set(slot, image) for slot, (_, image) in zip(images, batch, strict=True)]
        statuses = (c_int * len(batch))()
        status = self._library.reid_read(self._handle, images, len(batch), out.ctypes.data, statuses)
        del kept
        if status != _ERROR_IMAGE:
            self._check(status)
            return {}
        failed = [row for row, status in enumerate(statuses) if status != _OK]
        # On Linux the threads inherit the priority of this one.
        with ThreadPoolExecutor(min(self._threads, len(failed))) as workers:
            again = workers.map(
                lambda row: PythonReader.read(self, batch[row : row + 1], out[row : row + 1]), failed
            )
            return {number: error for errors in again for number, error in errors.items()}

    def num_at_once(self, batch_size: int) -> int:
        """See :meth:`PythonReader.num_at_once`."""
        return min(max(_MIN_AT_ONCE, -(-self._threads // batch_size)), self._threads)

    def describe(self) -> str:
        """See :meth:`PythonReader.describe`."""
        return f"decode and resize libreidruntime {LIBRARY_VERSION}"

    def _check(self, status: int) -> None:
        if status != _OK:
            raise ReidExportError(f"{self._path}: {self._library.reid_last_error().decode()}")


def open_batch_reader(preprocess: Preprocess, threads: int, depth: Depth = "refuse") -> PythonReader:
    """What reads in ``threads`` threads, with ``libreidruntime`` where ``REIDRUNTIME_LIBRARY`` names it.

    Raises:
        NotInstalledError: the variable is set, and what it names cannot be used; Python does not step in.
    """
    library = os.environ.get(LIBRARY_VARIABLE)
    if library:
        return LibraryReader(library, preprocess, threads, depth)
    return PythonReader(preprocess, threads, depth)


class _Image(Structure):
    """``reid_image``."""

    _fields_ = (
        ("path", c_char_p),
        ("pixels", c_void_p),
        ("height_px", c_size_t),
        ("width_px", c_size_t),
        ("row_bytes", c_size_t),
        ("jpeg", c_char_p),
        ("jpeg_bytes", c_size_t),
        ("camera", c_size_t),
    )


class _Options(Structure):
    """``reid_reader_options``."""

    _fields_ = (
        ("size", c_size_t),
        ("height_px", c_size_t),
        ("width_px", c_size_t),
        ("bicubic", c_int),
        ("bgr", c_int),
        ("threads", c_int),
    )


def _load(path: str) -> CDLL:
    what_to_do = f"Build it with make cpp, or unset {LIBRARY_VARIABLE}: images are then read in Python."
    try:
        library = CDLL(path)
        library.reid_version.restype = c_char_p
        version = library.reid_version().decode()
        if version != LIBRARY_VERSION:
            raise NotInstalledError(
                f"{LIBRARY_VARIABLE}: {path} is libreidruntime {version}, expected {LIBRARY_VERSION}. {what_to_do}"
            )
        library.reid_last_error.restype = c_char_p
        library.reid_open_reader.argtypes = (POINTER(_Options), POINTER(c_void_p))
        library.reid_read.argtypes = (c_void_p, POINTER(_Image), c_size_t, c_void_p, POINTER(c_int))
        library.reid_close_reader.argtypes = (c_void_p,)
        library.reid_close_reader.restype = None
    except (OSError, AttributeError) as error:
        raise NotInstalledError(
            f"{LIBRARY_VARIABLE}: {path} cannot be used ({error}). {what_to_do}"
        ) from error
    return library


def _set(slot: _Image, image: Image) -> Any:
    """Point to an image; returns what must stay alive. An image of no known form is left out, and so fails."""
    if isinstance(image, EncodedImage):
        data = bytes(image.data)
        slot.jpeg, slot.jpeg_bytes = data, len(data)
        return data
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            return None
        pixels = np.ascontiguousarray(image)
        slot.pixels, slot.height_px, slot.width_px = pixels.ctypes.data, *pixels.shape[:2]
        return pixels
    path = os.fsencode(image) if isinstance(image, str | os.PathLike) else b""
    if path and b"\0" not in path:
        slot.path = path
    return path
