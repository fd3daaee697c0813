"""Batches read by the C++ library have the pixels and the errors of those read in Python, or an error says why not.

Most of it needs a build of the library: ``make cpp-test`` makes one and names it in REIDRUNTIME_LIBRARY.
"""

import ctypes.util
import gc
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reidruntime import EncodedImage, NotInstalledError, SessionOptions, open_session
from reidruntime.artifact.manifest import Preprocess
from reidruntime.images.batch_reader import (
    LIBRARY_VARIABLE,
    LIBRARY_VERSION,
    LibraryReader,
    PythonReader,
    open_batch_reader,
)
from reidruntime.images.preprocess import Image
from reidruntime.images.resize import Image8

from reidexport.data import Dataset
from tests import ROOT
from tests.cpp.test_library import write_bad_images, write_kinds_of_jpeg
from tests.standins.runtime_models import write_artifact

LIBRARY = os.environ.get(LIBRARY_VARIABLE, "")
needs_library = pytest.mark.skipif(
    not LIBRARY, reason=f"needs a build of the C++ runtime, named in {LIBRARY_VARIABLE}: make cpp-test"
)


def preprocess(**changes: Any) -> Preprocess:
    """That of 32x16 pixels, with some fields changed."""
    sizes = {"height_px": 32, "width_px": 16}
    return Preprocess(mean=(0, 0, 0), std=(1, 1, 1), in_graph=True, **sizes | changes)


def read(reader: Any, images: list[Any], wanted: Preprocess) -> tuple[Image8, dict[int, str]]:
    """The pixels and the messages of a batch whose numbers start at 100."""
    out = np.zeros((len(images), wanted.height_px, wanted.width_px, 3), np.uint8)
    errors = reader.read([(100 + row, image) for row, image in enumerate(images)], out)
    return out, {number: str(error) for number, error in errors.items()}


@pytest.fixture
def photo(drawn_dataset: Dataset) -> Path:
    """A JPEG file of a drawn person."""
    return Path(drawn_dataset.gallery[0].path)


@needs_library
@pytest.mark.parametrize("threads", [1, 5])
@pytest.mark.parametrize(
    "changes",
    [{}, {"resize": "bicubic", "channel_order": "BGR"}, {"height_px": 34, "width_px": 66}],
    ids=["bilinear", "bicubic-BGR", "doubled"],
)
def test_every_kind_of_image_has_the_pixels_of_python(
    changes: dict[str, Any], threads: int, photo: Path, tmp_path: Path
) -> None:
    """Paths, contents of files and arrays; JPEG of every kind, PNG and CMYK; larger, smaller and of half the size."""
    wanted = preprocess(**changes)
    paths = write_kinds_of_jpeg(photo, tmp_path)
    bad = write_bad_images(photo, tmp_path)
    whole = photo.read_bytes()
    odd = EncodedImage("odd", whole[:20] + b"\0\0" + whole[20:])  # libjpeg warns of the two bytes
    noise = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    images: list[Image] = [
        *paths,
        *map(str, paths[:9]),
        *(EncodedImage(path.name, path.read_bytes()) for path in paths[::3]),
        bad["This runtime reads JPEG only"],
        bad["a CMYK image"],
        odd,
        *(noise, noise[::-1, 3:20], noise[:17, :33], noise.transpose(1, 0, 2), noise[:1, :1]),
    ]
    expected, no_errors = read(PythonReader(wanted, 1), images, wanted)
    found, errors = read(LibraryReader(LIBRARY, wanted, threads), images, wanted)
    assert errors == no_errors == {}
    assert [row for row in range(len(images)) if not np.array_equal(found[row], expected[row])] == []


@needs_library
def test_bad_images_have_the_messages_of_python(photo: Path, tmp_path: Path) -> None:
    """Bad ones among good ones are reported by number and in order, each in the same words; the good ones are read."""
    bad: list[Any] = [*write_bad_images(photo, tmp_path).values(), EncodedImage("upload", b"")]
    bad += [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 4, 3), np.uint8), None, 7]
    images = [image for each in bad for image in (photo, each)]
    expected, messages = read(PythonReader(preprocess(), 1), images, preprocess())
    found, errors = read(LibraryReader(LIBRARY, preprocess(), 3), images, preprocess())
    assert list(errors.items()) == list(messages.items())
    assert len(errors) == len(bad) - 2  # Pillow reads the PNG and the CMYK image
    assert np.array_equal(found[::2], expected[::2])
    with pytest.raises(ValueError, match="embedded null byte"):
        read(LibraryReader(LIBRARY, preprocess(), 1), [f"{photo}\0.png"], preprocess())


@needs_library
def test_threads_share_a_reader(photo: Path, tmp_path: Path) -> None:
    """Batches that are read at once do not mix."""
    paths: list[Any] = write_kinds_of_jpeg(photo, tmp_path)
    expected, _ = read(PythonReader(preprocess(), 1), paths, preprocess())
    reader = LibraryReader(LIBRARY, preprocess(), 3)
    parts = [(start, start + 1 + start % 9) for start in range(40)] * 5
    with ThreadPoolExecutor(4) as callers:
        found = callers.map(lambda part: read(reader, paths[slice(*part)], preprocess())[0], parts)
        for part, pixels in zip(parts, found, strict=True):
            assert np.array_equal(pixels, expected[slice(*part)])


@needs_library
@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_session_reads_with_the_library_that_is_named(
    batch_size: int,
    threads: int,
    drawn_dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its description says what reads; embeddings and bad images are those of a session that reads in Python."""
    artifact = write_artifact(tmp_path / "a.onnx")
    images = [Path(record.path) for record in drawn_dataset.gallery][:13]
    images[4] = tmp_path / "missing.jpg"

    def answer() -> tuple[str, list[int], list[Any], list[str]]:
        bad: list[str] = []
        with open_session(
            artifact, SessionOptions(backend="onnxruntime", device="cpu", threads=threads)
        ) as session:
            batches = list(
                session.embed_batches(
                    images, batch_size=batch_size, on_bad_image=lambda _, error: bad.append(str(error))
                )
            )
            indices = [index for numbers, _ in batches for index in numbers]
            return session.description, indices, np.concatenate([rows for _, rows in batches]).tolist(), bad

    description, *found = answer()
    monkeypatch.delenv(LIBRARY_VARIABLE)
    in_python, *expected = answer()
    assert description.endswith(f"; decode and resize libreidruntime {LIBRARY_VERSION}")
    assert "libreidruntime" not in in_python and "; decode " in in_python
    assert found == expected
    assert found[0] == [0, 1, 2, 3, *range(5, 13)] and len(found[2]) == 1


@needs_library
def test_a_reader_that_is_gone_leaves_no_threads(photo: Path) -> None:
    """Its threads start with the first batch and end with the reader."""

    def num_threads() -> int:
        gc.collect()
        return len(list(Path("/proc/self/task").iterdir()))

    before = num_threads()
    reader = LibraryReader(LIBRARY, preprocess(), 6)
    assert num_threads() == before
    read(reader, [photo] * 9, preprocess())
    assert num_threads() == before + 4  # and two more callers
    del reader
    assert num_threads() == before


@needs_library
def test_small_batches_are_read_more_at_once() -> None:
    """As many batches as keep all threads busy, at least two, at most one for each thread."""
    at_once = {
        threads: [LibraryReader(LIBRARY, preprocess(), threads).num_at_once(size) for size in (1, 3, 8, 64)]
        for threads in (1, 2, 16)
    }
    assert at_once == {1: [1, 1, 1, 1], 2: [2, 2, 2, 2], 16: [16, 6, 2, 2]}


@needs_library
@pytest.mark.parametrize(
    "out",
    [np.zeros((1, 32, 16, 3), np.uint8), np.zeros((2, 32, 16, 3)), np.zeros((4, 32, 16, 3), np.uint8)[::2]],
)
def test_memory_that_does_not_fit_is_refused(out: Any, photo: Path) -> None:
    """C++ writes into nothing but whole, contiguous batches."""
    with pytest.raises(ValueError, match=r"C-contiguous uint8 memory of shape \(2, 32, 16, 3\)"):
        LibraryReader(LIBRARY, preprocess(), 1).read([(0, photo), (1, photo)], out)


@needs_library
@pytest.mark.data
def test_every_test_image_of_market1501_has_the_pixels_of_python(data_root: Path) -> None:
    """All 19,732, as the network of the paper takes them."""
    wanted = preprocess(height_px=256, width_px=128)
    paths = sorted((data_root / "market1501" / "bounding_box_test").glob("*.jpg"))
    in_cpp, in_python = LibraryReader(LIBRARY, wanted, 2), PythonReader(wanted, 1)
    different = []
    for start in range(0, len(paths), 64):
        part = paths[start : start + 64]
        (found, errors), (expected, _) = read(in_cpp, part, wanted), read(in_python, part, wanted)
        same = (found == expected).all(axis=(1, 2, 3))
        different += [path.name for path, is_same in zip(part, same, strict=True) if not is_same]
        assert errors == {}
    assert (len(paths), different) == (19_732, [])


def test_a_library_that_cannot_be_used_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing file, another library and another version are named, with what to do; Python does not step in."""
    compiler, other_library = shutil.which("cc"), ctypes.util.find_library("m")
    if compiler is None or other_library is None:
        pytest.skip("there is no C compiler, or no other library, to make a wrong library of")
    source, newer = tmp_path / "newer.c", tmp_path / "libnewer.so"
    source.write_text('const char *reid_version(void) { return "9.1.0"; }')
    subprocess.run([compiler, "-shared", "-fPIC", "-o", newer, source], check=True)
    for library, words in {
        str(tmp_path / "none.so"): "none.so cannot be used (",
        other_library: f"{other_library} cannot be used (",
        str(
            newer
        ): f"libnewer.so is libreidruntime 9.1.0, expected {LIBRARY_VERSION}. Build it with make cpp",
    }.items():
        monkeypatch.setenv(LIBRARY_VARIABLE, library)
        with pytest.raises(NotInstalledError, match=re.escape(words)) as caught:
            open_batch_reader(preprocess(), 1)
        assert f"or unset {LIBRARY_VARIABLE}" in str(caught.value)


def test_the_version_is_that_of_the_library() -> None:
    """What Python expects is what CMake builds."""
    cmake = (ROOT / "engines" / "cpp" / "CMakeLists.txt").read_text()
    assert re.findall(r"project\(reidruntime VERSION ([\d.]+) ", cmake) == [LIBRARY_VERSION]
