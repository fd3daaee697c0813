"""How fast does the content of a JPEG file become pixels of the network's size?"""

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reidruntime.images.batch_reader import LIBRARY_VARIABLE, LibraryReader, PythonReader
from reidruntime.images.preprocess import EncodedImage
from reidruntime.images.resize import Image8

from benchmarks.harness.comparison import Compare
from benchmarks.harness.turns import Side, rounded
from benchmarks.peers.peers import num_threads
from reidexport.checkpoint.loading import imagenet_preprocess
from reidexport.data import Dataset

_HEIGHT_PX, _WIDTH_PX, _BATCH_SIZE = 256, 128, 32
_PREPROCESS = imagenet_preprocess(_HEIGHT_PX, _WIDTH_PX)
_THREADS = sorted({num_threads(), *(2**power for power in range(num_threads().bit_length()))})


def read_with_pillow(jpeg: bytes) -> Image8:
    """As training code does."""
    with Image.open(io.BytesIO(jpeg)) as image:
        sized = image.convert("RGB").resize((_WIDTH_PX, _HEIGHT_PX), Image.Resampling.BILINEAR)
    return np.asarray(sized)


@pytest.mark.parametrize("threads", _THREADS)
def test_jpeg_to_pixels(compare: Compare, dataset: Dataset, threads: int, quick: bool) -> None:
    """In Python, bit-equal to Pillow: against Pillow, and against decoding alone with the same decoder."""
    _measure(compare, dataset, threads, quick, "", {"reidexport": PythonReader(_PREPROCESS, threads)})


@pytest.mark.parametrize("threads", _THREADS)
def test_jpeg_to_pixels_in_cpp(compare: Compare, dataset: Dataset, threads: int, quick: bool) -> None:
    """In one call for each batch, bit-equal to Pillow: against the same in Python, Pillow, and decoding alone."""
    library = os.environ.get(LIBRARY_VARIABLE)
    if not library:
        pytest.skip(f"needs a build of the C++ library, named in {LIBRARY_VARIABLE}: make cpp")
    readers = {
        "reidexport": LibraryReader(library, _PREPROCESS, threads),
        "reidexport in Python": PythonReader(_PREPROCESS, threads),
    }
    _measure(compare, dataset, threads, quick, " in C++", readers)


def _measure(
    compare: Compare,
    dataset: Dataset,
    threads: int,
    quick: bool,
    where: str,
    readers: dict[str, PythonReader],
) -> None:
    records = (*dataset.query, *dataset.scored_gallery)[: 16 if quick else 2000]
    jpegs = [record.path.read_bytes() for record in records]
    starts = range(0, len(jpegs), _BATCH_SIZE)

    def read_batch(reader: PythonReader, start: int, out: Image8) -> None:
        batch = [(i, EncodedImage("jpeg", jpeg)) for i, jpeg in enumerate(jpegs[start : start + _BATCH_SIZE])]
        assert reader.read(batch, out[: len(batch)]) == {}

    def in_threads(read: Callable[[int, Image8], object], count: int, num_at_once: int) -> None:
        """Call it for every index, each thread with a batch of its own to write to."""

        def read_part(part: Sequence[int]) -> None:
            out = _empty_batch()
            for index in part:
                read(index, out)

        list(workers.map(read_part, [range(start, count, num_at_once) for start in range(num_at_once)]))

    def read_all(reader: PythonReader) -> None:
        """As sessions do."""
        num_at_once = reader.num_at_once(_BATCH_SIZE)
        in_threads(lambda index, out: read_batch(reader, starts[index], out), len(starts), num_at_once)

    def read_each(read: Callable[[bytes, Image8], object]) -> None:
        in_threads(lambda index, out: read(jpegs[index], out[index % _BATCH_SIZE]), len(jpegs), threads)

    for start in starts:
        expected = [read_with_pillow(jpeg) for jpeg in jpegs[start : start + _BATCH_SIZE]]
        for reader in readers.values():
            read_batch(reader, start, out := _empty_batch())
            assert np.array_equal(out[: len(expected)], expected)
    sides: dict[str, Side] = {name: partial(read_all, reader) for name, reader in readers.items()}
    sides["Pillow"] = lambda: read_each(lambda jpeg, row: np.copyto(row, read_with_pillow(jpeg)))
    if find_spec("simplejpeg"):
        import simplejpeg

        sides["limit"] = lambda: read_each(lambda jpeg, _: simplejpeg.decode_jpeg(jpeg, "RGB"))
    on_threads = f"{threads} thread{'s' * (threads > 1)}"
    with ThreadPoolExecutor(threads) as workers:
        row = compare(
            f"JPEG to {_HEIGHT_PX}x{_WIDTH_PX} pixels{where}, {on_threads}",
            f"{len(jpegs)} JPEG files of {_sizes(records)} px in memory to batches of {_BATCH_SIZE}; {on_threads} "
            "on all sides; limit: simplejpeg decodes, and nothing else",
            sides.pop("reidexport"),
            sides,
        )
    row["threads"] = threads
    row["images_per_s"] = rounded(len(jpegs) / row["seconds"]["reidexport"]["median"])
    row["images_per_s_and_thread"] = rounded(row["images_per_s"] / threads)


def _empty_batch() -> Image8:
    return np.empty((_BATCH_SIZE, _HEIGHT_PX, _WIDTH_PX, 3), np.uint8)


def _sizes(records: Sequence[Any]) -> str:
    """Height x width, where all have the same, else of the smallest and the largest image."""
    sizes = {Image.open(record.path).size[::-1] for record in records}
    return " to ".join(f"{height}x{width}" for height, width in sorted({min(sizes), max(sizes)}))
