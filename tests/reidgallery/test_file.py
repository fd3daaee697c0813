"""The file of a gallery: whole or refused, whatever happens while it is written."""

import hashlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from reidgallery import Gallery, load_gallery
from reidgallery.file import MAGIC
from reidgallery.input import UNLABELED
from reidruntime import InputError

from tests.standins.galleries import SCANS, assert_same, gallery_of, people, sorted_in_full


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A small gallery on the disk, with names of every kind."""
    gallery = Gallery(6, metric="euclidean", manifest_sha256="ab" * 32)
    rows = people(np.random.default_rng(8), 5, 6)
    names = ["a.jpg", "", "ö/人.png", os.fsdecode(b"\xff.jpg"), "e"]
    times = [2000451, 0, UNLABELED, 1764086400000, 7]
    gallery.add(rows, pids=[-1, 0, 1, 2, 3], camids=[0, 1, 2, 0, 1], times=times, paths=names)
    gallery.save(tmp_path / "people.gallery")
    return tmp_path / "people.gallery"


def test_what_is_loaded_is_what_was_saved(saved: Path) -> None:
    """Rows, labels, any path, metric and artifact come back; adding and saving again goes on from there."""
    gallery = load_gallery(saved)
    rows = people(np.random.default_rng(8), 5, 6)
    assert gallery.paths == ["a.jpg", "", "ö/人.png", os.fsdecode(b"\xff.jpg"), "e"]
    assert (gallery.pids.tolist(), gallery.camids.tolist()) == ([-1, 0, 1, 2, 3], [0, 1, 2, 0, 1])
    assert gallery.times.tolist() == [2000451, 0, UNLABELED, 1764086400000, 7]
    assert (gallery.metric, gallery.manifest_sha256, gallery.dim) == ("euclidean", "ab" * 32, 6)
    assert_same(gallery.search(rows, 5), sorted_in_full(rows, rows, 5, "euclidean"))
    more = people(np.random.default_rng(9), 3, 6)
    gallery.add(more[:1])
    gallery.add(more[1:])
    gallery.save(saved)
    gallery.save(saved)
    both = np.concatenate([rows, more])
    for scan in SCANS:
        assert_same(
            load_gallery(saved).search(rows, 8, scan=scan), sorted_in_full(rows, both, 8, "euclidean")
        )


def as_version_1(path: Path) -> None:
    """Rewrite a gallery as files were before there were times."""
    content = path.read_bytes()
    start = 48 + int.from_bytes(content[8:16], "little")
    header = json.loads(content[48:start])
    sizes = 4 * header["num_rows"] * header["dim"], 8 * header["num_rows"]
    times = start + sizes[0] + 4 * sizes[1]
    header["format_version"] = 1
    del header["sha256"]["times"]
    text = json.dumps(header).encode()
    text += b" " * (-(48 + len(text)) % 64)
    prefix = MAGIC + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest()
    path.unlink()  # it may be mapped
    path.write_bytes(prefix + text + content[start:times] + content[times + sizes[1] :])


def test_files_from_before_there_were_times_are_read(saved: Path) -> None:
    """Everything of a file of format version 1 is there, its times are not known, and saving makes it version 2."""
    new = load_gallery(saved)
    as_version_1(saved)
    old = load_gallery(saved)
    assert np.array_equal(old.parts[0], new.parts[0])
    for name in ("pids", "camids", "paths"):
        assert list(getattr(old, name)) == list(getattr(new, name))
    assert old.times.tolist() == [UNLABELED] * 5
    old.save(saved)
    assert load_gallery(saved).times.tolist() == [UNLABELED] * 5
    assert b'"format_version": 2' in saved.read_bytes()


def test_an_empty_gallery_is_saved_too(tmp_path: Path) -> None:
    """No rows, no error."""
    Gallery(3).save(tmp_path / "none.gallery")
    loaded = load_gallery(tmp_path / "none.gallery")
    assert (len(loaded), loaded.dim) == (0, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".none.gallery.lock", "none.gallery"]


def test_every_flipped_byte_is_detected(saved: Path) -> None:
    """Whichever byte of the file is changed, loading it is an error that names the file."""
    whole = saved.read_bytes()
    for position in range(len(whole)):
        broken = bytearray(whole)
        broken[position] ^= 1 << position % 8
        saved.write_bytes(broken)
        with pytest.raises(
            InputError, match=r"people\.gallery: (not a gallery|the gallery is (damaged|\d+ bytes))"
        ):
            load_gallery(saved)


def test_a_file_that_is_cut_off_or_longer_is_refused(saved: Path, tmp_path: Path) -> None:
    """Every shorter file, a longer one, an empty one, none and another format are refused in words."""
    whole = saved.read_bytes()
    for length in range(1, len(whole)):
        saved.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"people\.gallery: "):
            load_gallery(saved)
    saved.write_bytes(whole + b"x")
    with pytest.raises(InputError, match=rf"is {len(whole) + 1} bytes long, expected {len(whole)}"):
        load_gallery(saved)
    saved.write_bytes(b"")
    with pytest.raises(InputError, match="the file is empty"):
        load_gallery(saved)
    saved.write_bytes(b"PK" * 100)
    with pytest.raises(InputError, match=f"it does not start with {MAGIC.decode()}"):
        load_gallery(saved)
    with pytest.raises(InputError, match=r"no\.gallery: cannot be read \(No such file"):
        load_gallery(tmp_path / "no.gallery")


def test_unverified_loading_leaves_the_embeddings_on_the_disk(tmp_path: Path) -> None:
    """With verify=False a load of 256 MiB of embeddings keeps less than 32 MiB of them in memory."""
    path = tmp_path / "large.gallery"
    gallery_of(np.ones((2**15, 2**11), np.float32)).save(path)
    code = (
        "import re, sys; from pathlib import Path; from reidgallery import load_gallery\n"
        "mapped = lambda: int(re.search(r'RssFile:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "before = mapped(); gallery = load_gallery(sys.argv[1], verify=False); print(mapped() - before, len(gallery))"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc/self/status")
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    kibibytes, rows = map(int, done.stdout.split())
    assert rows == 2**15
    assert kibibytes < 32 * 1024


def _save_for_ever(path: str, num_rows: int, value: float) -> None:
    rows = np.full((num_rows, 16), value, np.float32)
    while True:
        gallery_of(rows).save(path)


def _value_of(path: Path, num_rows: int) -> float:
    """The one value that fills a whole gallery."""
    (rows,) = load_gallery(path).parts
    assert rows.shape == (num_rows, 16)
    assert rows.min() == rows.max()
    return float(rows[0, 0])


def test_killed_while_saving_leaves_one_whole_gallery(tmp_path: Path) -> None:
    """Killed while it writes 200,000 rows or after, the old or the new file is whole; a later save tidies up."""
    path, num_rows = tmp_path / "people.gallery", 200_000
    gallery_of(np.zeros((num_rows, 16), np.float32)).save(path)
    context = multiprocessing.get_context("fork")
    outcomes, old = set(), 0.0
    for attempt in range(1, 11):
        replaced = path.stat().st_ino
        writer = context.Process(target=_save_for_ever, args=(str(path), num_rows, float(attempt)))
        writer.start()
        if attempt % 2:
            _wait_until(lambda: any(".unfinished" in file.name for file in tmp_path.iterdir()))
        else:
            _wait_until(lambda inode=replaced: path.stat().st_ino != inode)
        assert writer.pid
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        new = _value_of(path, num_rows)
        assert new in (old, float(attempt))
        outcomes.add(new != old)
        old = new
    assert outcomes == {False, True}
    gallery_of(np.ones((2, 3), np.float32)).save(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".people.gallery.lock", "people.gallery"]


def test_saving_tidies_up_after_its_own_path_only(tmp_path: Path) -> None:
    """What a killed save of this path left goes; what others are writing, of names that begin alike, stays."""
    others = [".people[1].2024.0123abcd.unfinished", ".people[1].0123abcd.89ab4567.unfinished"]
    for name in (*others, ".people[1].0123abcd.unfinished"):
        (tmp_path / name).touch()
    gallery_of(np.eye(2, dtype=np.float32)).save(tmp_path / "people[1].gallery")
    assert sorted(path.name for path in tmp_path.glob(".*.unfinished")) == sorted(others)


def _wait_until(is_so: Callable[[], bool], at_most_s: float = 60) -> None:
    end = time.monotonic() + at_most_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_two_writers_cannot_corrupt_a_gallery(tmp_path: Path) -> None:
    """While two processes save to one path without a pause, every load is whole and of one of them."""
    path, num_rows = tmp_path / "people.gallery", 20_000
    gallery_of(np.ones((num_rows, 16), np.float32)).save(path)
    context = multiprocessing.get_context("fork")
    writers = [
        context.Process(target=_save_for_ever, args=(str(path), num_rows, value)) for value in (1.0, 2.0)
    ]
    for writer in writers:
        writer.start()
    try:
        seen, end = set[float](), time.monotonic() + 60
        while len(seen) < 2 and time.monotonic() < end:
            seen.add(_value_of(path, num_rows))
        assert seen == {1.0, 2.0}
        assert all(writer.is_alive() for writer in writers)
    finally:
        for writer in writers:
            writer.kill()
            writer.join()


def test_rows_of_another_writer_are_not_lost(saved: Path) -> None:
    """Who adds to a gallery that somebody else has replaced since is told so, and the file stays theirs."""
    mine, theirs = load_gallery(saved), load_gallery(saved)
    theirs.add(np.ones((1, 6), np.float32))
    theirs.save(saved)
    mine.add(np.ones((2, 6), np.float32))
    with pytest.raises(InputError, match=r"another program has written the gallery since it was looked at"):
        mine.save(saved)
    assert len(load_gallery(saved)) == 6
    mine.save(saved.with_name("mine.gallery"))
    assert len(load_gallery(saved.with_name("mine.gallery"))) == 7


def test_a_failed_save_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error half way (a full disk) leaves the old gallery, and nothing else."""
    before = saved.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    gallery = load_gallery(saved)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        InputError, match=re.escape("people.gallery: cannot be written (No space left on device)")
    ):
        gallery.save(saved)
    assert saved.read_bytes() == before
    assert sorted(path.name for path in saved.parent.iterdir()) == [".people.gallery.lock", "people.gallery"]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """A path in a folder that is not there, or of a folder, is an error in words."""
    with pytest.raises(InputError, match=r"x\.gallery: cannot be written \(No such file or directory\)"):
        Gallery(2).save(tmp_path / "no" / "x.gallery")
    (tmp_path / "d.gallery").mkdir()
    with pytest.raises(InputError, match=r"d\.gallery: is not a regular file"):
        Gallery(2).save(tmp_path / "d.gallery")


def test_the_forgotten_are_kept_in_the_file(saved: Path) -> None:
    """Persons and paths that were forgotten come back as a list; a file without any is one that version 2 reads."""
    assert b'"format_version": 2' in saved.read_bytes()
    gallery = load_gallery(saved)
    strange = os.fsdecode(b"\xff.jpg")
    assert gallery.forget([3], paths=[strange, "ö/人.png"]) == 3
    gallery.save(saved)
    assert b'"format_version": 3' in saved.read_bytes()
    again = load_gallery(saved)
    assert again.forgotten == gallery.forgotten == ({3}, {strange, "ö/人.png"}, {(3, "e")})
    assert again.paths == ["a.jpg", ""]
    again.bring_back(again.forgotten)
    again.save(saved)
    assert b'"format_version": 2' in saved.read_bytes()


def test_a_damaged_list_of_the_forgotten_is_refused(saved: Path) -> None:
    """Every flipped byte of the list is detected, and a list of something else under a right checksum, too."""
    gallery = load_gallery(saved)
    gallery.forget([3])
    gallery.save(saved)
    whole = saved.read_bytes()
    start = whole.rindex(b'{"pids"')
    for position in range(start, len(whole)):
        saved.unlink()
        saved.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(InputError, match="its forgotten do not fit their checksum"):
            load_gallery(saved)
    other = whole[start:].replace(b"[3]", b"[x]")
    changed = whole[:start] + other
    header_end = 48 + int.from_bytes(whole[8:16], "little")
    text = whole[48:header_end].replace(
        hashlib.sha256(whole[start:]).hexdigest().encode(), hashlib.sha256(other).hexdigest().encode()
    )
    saved.unlink()
    saved.write_bytes(whole[:16] + hashlib.sha256(text).digest() + text + changed[header_end:])
    with pytest.raises(InputError, match="its list of the forgotten cannot be read"):
        load_gallery(saved)
