"""The gallery: exact answers, filters that leave out what they say, and rows that come and go."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from reidgallery import Gallery, SearchFilter, load_gallery
from reidgallery.gallery import UNLABELED, Scan
from reidruntime import InputError

from reidexport.embed.files import gallery_from_manifest
from tests.standins.galleries import (
    SCANS,
    assert_same,
    check_who_needs_a_camera,
    gallery_of,
    people,
    sorted_in_full,
)
from tests.standins.runtime_models import small_manifest


def test_an_empty_gallery_and_no_query_are_answered() -> None:
    """Nothing to find is -1 and infinity; nobody asking is an answer of no rows."""
    found = Gallery(4).search(np.ones((2, 4), np.float32), 3)
    assert found.indices.tolist() == [[-1] * 3] * 2
    assert np.isinf(found.distances).all()
    assert gallery_of(np.ones((2, 4), np.float32)).search(np.empty((0, 4), np.float32), 3).indices.shape == (
        0,
        3,
    )
    nobody = gallery_of(np.ones((2, 4), np.float32)).search(np.empty((0, 4), np.float32), 3, scan="int8")
    assert nobody.indices.shape == (0, 3)


def wrong_calls() -> list[tuple[Callable[[Gallery], object], str]]:
    """Calls that a gallery of two labeled and one unlabeled rows of 4 dimensions refuses, and its words."""
    ones = np.ones((1, 4), np.float32)
    return [
        (
            lambda g: g.add(np.ones((2, 3), np.float32)),
            r"embeddings must be float32 of shape \(N, 4\), got float32",
        ),
        (
            lambda g: g.add(np.ones((2, 4))),
            r"must be float32 of shape \(N, 4\), got float64 of shape \(2, 4\)",
        ),
        (lambda g: g.add(ones * np.nan), r"embeddings: row 0 is not an embedding: its norm is nan"),
        (lambda g: g.add(ones * 1e20), r"norm is 2e\+20, expected 0 or between 1e-12 and 1e\+12"),
        (lambda g: g.add(ones, pids=[1, 2]), r"pids must be 1 integers, got int64 of shape \(2,\)"),
        (lambda g: g.add(ones, camids=[0.5]), r"camids must be 1 integers, got float64"),
        (
            lambda g: g.add(ones, pids=[2**64 - 1]),
            r"pids must be less than 2\*\*63, got 18446744073709551615",
        ),
        (lambda g: g.add(ones, pids=[-7]), r"pids must be at least -1, or UNLABELED \(-2\), got -7"),
        (lambda g: g.add(ones, camids=[-5]), r"camids must be at least 0, or UNLABELED \(-2\), got -5"),
        (lambda g: g.search(ones, camids=[-1]), r"camids must be at least 0, or UNLABELED \(-2\), got -1"),
        (lambda g: g.add(ones, paths=["a", "b"]), r"paths must be 1 texts, got 2"),
        (lambda g: g.add(ones, paths=["a\ud800"]), r"paths must be text that .*, got 'a\\ud800'"),
        (
            lambda g: g.add(ones, manifest_sha256="cd" * 32),
            r"embeddings were made by another artifact .*cdcdcdcd",
        ),
        (lambda g: g.search(ones, manifest_sha256="cd" * 32), r"queries were made by another artifact"),
        (
            lambda g: g.search(np.ones(4, np.float32)),
            r"queries must be float32 of shape \(N, 4\), got .*\(4,\)",
        ),
        (lambda g: g.search(ones * np.inf), r"queries: row 0 is not an embedding: its norm is inf"),
        (lambda g: g.search(ones, 0), r"k must be at least 1, got 0"),
        (lambda g: g.search(ones, scan="int4"), r"scan must be one of auto, float32, .*, got 'int4'"),  # type: ignore[arg-type]
        (
            lambda g: g.search(ones, filter=SearchFilter(other_cameras=True), camids=[1]),
            r"needs the camid of every row, which 1 of 3",
        ),
        (
            lambda g: g.search(ones, filter=SearchFilter(among_camids=[1])),
            r"among_camids needs the camid .*the first: row 2 c\.jpg",
        ),
        (
            lambda g: g.search(ones, filter=SearchFilter(exclude_junk=True), pids=[1]),
            r"exclude_junk needs the pids and camids of the q",
        ),
        (
            lambda g: g.search(ones, filter=SearchFilter(exclude_junk=True), pids=[1], camids=[0]),
            r"exclude_junk needs the pid of every row, which 1 of 3 .*the first: row 2 c\.jpg",
        ),
        (
            lambda g: g.extend(Gallery(4, metric="euclidean")),
            r"compares by cosine, the other one by euclidean",
        ),
        (lambda g: g.save("gallery.npz"), r"gallery\.npz: expected a name that ends in \.gallery"),
        (lambda g: Gallery(0), r"dim must be at least 1, got 0"),
        (lambda g: Gallery(4, metric="dot"), r"metric must be cosine or euclidean, got 'dot'"),  # type: ignore[arg-type]
        (lambda g: Gallery(4, threads=0), r"threads must be at least 1, got 0"),
    ]


@pytest.mark.parametrize("number", range(len(wrong_calls())))
def test_what_does_not_fit_is_refused_in_words(number: int) -> None:
    """Wrong shapes, labels, artifacts and filters are errors that say so; the gallery stays as it was."""
    call, words = wrong_calls()[number]
    gallery = Gallery(4, manifest_sha256="ab" * 32)
    gallery.add(np.eye(4, dtype=np.float32)[:2], pids=[1, 2], camids=[0, 1], paths=["a.jpg", "b.jpg"])
    gallery.add(np.eye(4, dtype=np.float32)[2:3], paths=["c.jpg"])
    with pytest.raises(InputError, match=words):
        call(gallery)
    assert (len(gallery), len(gallery.paths), len(gallery.camids)) == (3, 3, 3)


def test_other_cameras_needs_the_cameras_of_the_queries() -> None:
    """A query of an unknown camera cannot be kept from its own."""
    gallery = Gallery(2)
    gallery.add(np.eye(2, dtype=np.float32), camids=[0, 1])
    with pytest.raises(InputError, match="other_cameras needs the camids of the queries"):
        gallery.search(np.eye(2, dtype=np.float32), filter=SearchFilter(other_cameras=True))


def test_junk_is_left_out_only_where_it_can_be_told() -> None:
    """Rows of a person need a camera; those of nobody (junk, distractors) are told apart without one."""
    check_who_needs_a_camera(Gallery(4), 4)


def test_galleries_are_joined_with_their_labels() -> None:
    """Extend appends rows, labels and paths; another artifact's are refused."""
    rng = np.random.default_rng(6)
    first, second = gallery_from_manifest(small_manifest()), gallery_from_manifest(small_manifest())
    rows = people(rng, 9, first.dim)
    first.add(rows[:4], pids=range(4), camids=[0] * 4, paths=list("abcd"))
    second.add(rows[4:], paths=list("efghi"))
    first.extend(second)
    assert first.paths == list("abcdefghi")
    assert first.pids.tolist() == [0, 1, 2, 3, *[UNLABELED] * 5]
    assert_same(first.search(rows, 9), sorted_in_full(rows, rows, 9, first.metric))
    with pytest.raises(InputError, match="made by another artifact"):
        first.extend(Gallery(first.dim, metric=first.metric, manifest_sha256="ab" * 32))


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize(("since", "until"), [(3, None), (None, 6), (3, 6), (5, 5), (99, None)])
def test_a_time_window_holds_its_first_and_last_moment(
    scan: Scan, since: int | None, until: int | None
) -> None:
    """Rows of other times are left out; the rest is what a sort of the whole matrix gives."""
    rng = np.random.default_rng(4)
    rows, queries, times = people(rng, 120, 16), people(rng, 3, 16), rng.integers(0, 10, 120)
    gallery = Gallery(16)
    gallery.add(rows, times=times)
    outside = (times < (since or 0)) | (times > (99 if until is None else until))
    expected = sorted_in_full(queries, rows, 50, "cosine", np.tile(outside, (3, 1)))
    assert_same(
        gallery.search(queries, 50, filter=SearchFilter(since=since, until=until), scan=scan), expected
    )


def test_rows_are_read_by_their_numbers(tmp_path: Path) -> None:
    """In any order and more than once, from parts in memory and mapped ones; others are refused."""
    rows = people(np.random.default_rng(3), 50, 6)
    gallery = Gallery(6)
    gallery.add(rows[:40])
    gallery.save(tmp_path / "people.gallery")
    gallery = load_gallery(tmp_path / "people.gallery")
    gallery.add(rows[40:])
    assert gallery.row_numbers().tolist() == list(range(50))
    asked = np.array([49, 0, 39, 40, 0])
    assert np.array_equal(gallery.embeddings(asked), rows[asked])
    assert gallery.embeddings(asked[:0]).shape == (0, 6)
    for bad in (-1, 50):
        with pytest.raises(InputError, match=f"The gallery has 50 rows, and no row {bad}"):
            gallery.embeddings(np.array([0, bad]))


@pytest.mark.parametrize("scan", SCANS)
def test_removed_persons_are_gone(tmp_path: Path, scan: Scan) -> None:
    """A gallery without some persons answers as one that never had them, mapped, saved or searched before."""
    rng = np.random.default_rng(8)
    rows, pids = people(rng, 60, 6), rng.integers(-1, 5, 60)
    pids[20:40] = 3
    paths = [f"{row}.jpg" for row in range(60)]
    gallery = Gallery(6)
    for part in (slice(0, 40), slice(40, 60)):
        gallery.add(rows[part], pids=pids[part], camids=pids[part] + 1, paths=paths[part])
    gallery.save(tmp_path / "people.gallery")
    mapped = load_gallery(tmp_path / "people.gallery")
    kept = ~np.isin(pids, [3, -1])
    for changed in (gallery, mapped):
        changed.search(rows[:5], 3, scan=scan)
        assert changed.remove([3, -1, 99]) == np.count_nonzero(~kept)
        assert changed.paths == [path for path, keep in zip(paths, kept, strict=True) if keep]
        assert changed.pids.tolist() == pids[kept].tolist()
        assert changed.camids.tolist() == (pids[kept] + 1).tolist()
        assert_same(changed.search(rows, 9, scan=scan), sorted_in_full(rows, rows[kept], 9, "cosine"))
    mapped.save(tmp_path / "people.gallery")
    assert len(load_gallery(tmp_path / "people.gallery")) == np.count_nonzero(kept)
    assert rows[pids == 3][0].tobytes() not in (tmp_path / "people.gallery").read_bytes()


def test_no_copy_of_removed_persons_stays_in_memory() -> None:
    """What a search made of the rows is let go when persons are removed or rows are added, not at the next search."""
    rng = np.random.default_rng(6)
    rows = (rng.standard_normal((600, 64)) * np.geomspace(1, 0.001, 64)).astype(np.float32)
    gallery = Gallery(64)
    gallery.add(rows, pids=np.arange(600) % 3)
    for change in (lambda: gallery.remove([2]), lambda: gallery.add(rows[:1])):
        gallery.search(rows[:2], 3, scan="int8")
        assert gallery._projected is not None
        change()
        assert gallery._projected is None


def test_rows_without_a_person_cannot_be_removed() -> None:
    """Asking for the pid of unlabeled rows is refused, and everyone can be removed."""
    gallery = gallery_of(np.eye(3, dtype=np.float32))
    with pytest.raises(InputError, match="pids to remove must be at least -1, got -2"):
        gallery.remove([1, UNLABELED])
    assert gallery.remove([1]) == 0
    gallery.add(np.eye(3, dtype=np.float32), pids=[1, 1, 1])
    assert gallery.remove([1]) == 3
    assert len(gallery) == 3
    everyone = Gallery(3)
    everyone.add(np.eye(3, dtype=np.float32), pids=[1, 1, 1])
    assert everyone.remove([1]) == 3
    assert everyone.search(np.eye(3, dtype=np.float32), 2).indices.tolist() == [[-1, -1]] * 3
