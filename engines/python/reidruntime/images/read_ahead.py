"""Batches of images, read by worker threads while the caller works on those before."""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

from reidruntime.errors import ImageError
from reidruntime.images.batch_reader import PythonReader
from reidruntime.images.preprocess import Image
from reidruntime.images.resize import Image8

_NICENESS = 10


class ReadBatch(NamedTuple):
    """Some images of a stream.

    Attributes:
        indices: the positions of those that could be read.
        pixels: uint8, shape (len(indices), height_px, width_px, 3).
        errors: of the others, by their positions, in order.
    """

    indices: list[int]
    pixels: Image8
    errors: dict[int, ImageError]


def read_ahead(
    images: Iterable[Image], size: int, reader: PythonReader, memory: Callable[[int], Image8]
) -> Generator[ReadBatch, None, None]:
    """Read a stream of images in order, holding only a few batches of it in memory.

    Args:
        images: any iterable.
        size: images per batch; the last one may have fewer.
        reader: what reads a batch.
        memory: makes what so many images are read into.
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


def _read(batch: list[tuple[int, Image]], reader: PythonReader, memory: Callable[[int], Image8]) -> ReadBatch:
    pixels = memory(len(batch))
    errors = reader.read(batch, pixels)
    good = [row for row, (index, _) in enumerate(batch) if index not in errors]
    if errors:
        pixels[: len(good)] = pixels[good]
    return ReadBatch([batch[row][0] for row in good], pixels[: len(good)], errors)


def _lower_priority() -> None:
    """Lower the calling thread's priority, where threads have one.

    A network's threads wait for each other at every layer: one that a reading thread keeps from its core keeps all of
    them waiting.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
