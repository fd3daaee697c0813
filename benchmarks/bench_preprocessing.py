"""How fast does the content of a JPEG file become pixels of the network's size?"""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image
from reidruntime.preprocess import decode_bytes
from reidruntime.resize import Image8, resize

from benchmarks.comparison import Compare
from benchmarks.peers import num_threads
from benchmarks.turns import rounded
from reidexport.datasets import Dataset

Read = Callable[[bytes], Image8]

_HEIGHT_PX, _WIDTH_PX, _BATCH_SIZE = 256, 128, 32


def read(jpeg: bytes) -> Image8:
    """As sessions do."""
    return resize(decode_bytes(jpeg, "jpeg"), _HEIGHT_PX, _WIDTH_PX, "bilinear")


def read_with_pillow(jpeg: bytes) -> Image8:
    """As training code does."""
    with Image.open(io.BytesIO(jpeg)) as image:
        sized = image.convert("RGB").resize((_WIDTH_PX, _HEIGHT_PX), Image.Resampling.BILINEAR)
    return np.asarray(sized)


@pytest.mark.parametrize("threads", sorted({1, num_threads()}))
def test_jpeg_to_pixels(compare: Compare, dataset: Dataset, threads: int, quick: bool) -> None:
    """Bit-equal to Pillow, against Pillow, and against decoding alone with the same decoder."""
    records = (*dataset.query, *dataset.scored_gallery)[: 16 if quick else 2000]
    jpegs = [record.path.read_bytes() for record in records]
    for jpeg in jpegs:
        assert np.array_equal(read(jpeg), read_with_pillow(jpeg))
    batch = np.empty((_BATCH_SIZE, _HEIGHT_PX, _WIDTH_PX, 3), np.uint8)

    def read_all(read_one: Read) -> None:
        def read_part(part: Sequence[int]) -> None:
            for index in part:
                batch[index % _BATCH_SIZE] = read_one(jpegs[index])

        _in_parts(read_part, len(jpegs), workers, threads)

    def decode_all() -> None:
        def decode_part(part: Sequence[int]) -> None:
            for index in part:
                simplejpeg.decode_jpeg(jpegs[index], "RGB")

        _in_parts(decode_part, len(jpegs), workers, threads)

    on_threads = f"{threads} thread{'s' * (threads > 1)}"
    with ThreadPoolExecutor(threads) as workers:
        row = compare(
            f"JPEG to {_HEIGHT_PX}x{_WIDTH_PX} pixels, {on_threads}",
            f"{len(jpegs)} JPEG files of {_sizes(records)} px in memory to batches of {_BATCH_SIZE}; {on_threads} "
            "on all sides; limit: simplejpeg decodes, and nothing else",
            lambda: read_all(read),
            {"Pillow": lambda: read_all(read_with_pillow), "limit": decode_all},
        )
    row["threads"] = threads
    row["images_per_s"] = rounded(len(jpegs) / row["seconds"]["reidexport"]["median"])
    row["images_per_s_and_thread"] = rounded(row["images_per_s"] / threads)


def _in_parts(
    work: Callable[[Sequence[int]], None], count: int, workers: ThreadPoolExecutor, threads: int
) -> None:
    list(workers.map(work, [range(start, count, threads) for start in range(threads)]))


def _sizes(records: Sequence[Any]) -> str:
    """Height x width, where all have the same, else of the smallest and the largest image."""
    sizes = {Image.open(record.path).size[::-1] for record in records}
    return " to ".join(f"{height}x{width}" for height, width in sorted({min(sizes), max(sizes)}))
