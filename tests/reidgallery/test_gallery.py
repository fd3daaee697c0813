"""The gallery: exact answers, filters that leave out what they say, and rows that come and go."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from reidgallery import Gallery, SearchFilter, load_gallery
from reidgallery.gallery import Scan
from reidgallery.input import UNLABELED, Forgotten, LabeledRows
from reidruntime import InputError

from reidexport.embed.files import gallery_from_manifest
from tests.standins.galleries import SCANS, assert_same, gallery_of, people, sorted_in_full
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


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: gallery_of(np.ones((1, 4), np.float32)).search(np.ones((1, 4), np.float32), scan="int4"),  # type: ignore[arg-type]
            r"scan must be one of auto, float32, .*, got 'int4'",
        ),
        (lambda: Gallery(4).save("gallery.npz"), r"gallery\.npz: expected a name that ends in \.gallery"),
        (lambda: Gallery(0), r"dim must be at least 1, got 0"),
        (lambda: Gallery(4, metric="dot"), r"metric must be cosine or euclidean, got 'dot'"),  # type: ignore[arg-type]
        (lambda: Gallery(4, threads=0), r"threads must be at least 1, got 0"),
    ],
)
def test_what_no_gallery_can_be_or_do_is_refused_in_words(call: Callable[[], object], words: str) -> None:
    """Scans and files that do not exist, and galleries that cannot be, are errors that say so."""
    with pytest.raises(InputError, match=words):
        call()


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


def test_adding_nothing_keeps_what_searches_made() -> None:
    """No rows, or those of an empty gallery, do not make the next search prepare the others again."""
    gallery = gallery_of(np.random.default_rng(6).standard_normal((600, 64)).astype(np.float32))
    gallery.search(np.eye(64, dtype=np.float32)[:1], 3, scan="int8")
    made = gallery._coded
    assert made is not None
    gallery.add(np.empty((0, 64), np.float32))
    gallery.extend(Gallery(64))
    assert gallery._coded is made


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


def test_images_are_removed_by_path_and_forgotten() -> None:
    """Rows go by pid and by path; forget lists whom, remove does not; who is brought back is off the list."""
    gallery = Gallery(2)
    gallery.add(np.eye(2, dtype=np.float32)[[0, 1, 0, 1]], pids=[1, 2, 3, -1], paths=["a", "b", "c", ""])
    assert gallery.remove(paths=["c", "z", ""]) == 2
    assert (gallery.paths, gallery.forgotten) == (["a", "b"], Forgotten())
    assert gallery.forget([2], paths=["a"]) == 2
    assert (len(gallery), gallery.forgotten) == (0, ({2}, {"a"}, {(2, "b")}))
    rows = LabeledRows(
        *(np.ones((4, 2), np.float32), *np.array([[1, 2, 3, 4]] * 3)), paths=["a", "b", "c", "d"]
    )
    assert gallery.forgotten.among(rows).tolist() == [True, True, False, False]
    gallery.bring_back(Forgotten(frozenset({2, 7}), frozenset({"q"})))
    assert gallery.forgotten == (frozenset(), {"a"}, frozenset())
    with pytest.raises(InputError, match="at least -1, got -2"):
        gallery.forget([-2])


def test_a_forgotten_person_is_found_by_path_until_the_person_or_the_image_is_back() -> None:
    """Rows without labels are on the list by their paths; these leave with the person, and one alone by itself."""
    gallery = Gallery(2)
    gallery.add(np.eye(2, dtype=np.float32)[[0, 1, 0, 1]], pids=[7, 7, 8, 7], paths=["a", "b", "c", ""])
    gallery.forget([7, 8])
    unknown = np.full((3, 3), UNLABELED)
    rows = LabeledRows(np.ones((3, 2), np.float32), *unknown, paths=["a", "b", "c"])
    assert gallery.forgotten.among(rows).tolist() == [True, True, True]
    gallery.bring_back(Forgotten(paths=frozenset({"a"})))
    assert gallery.forgotten == ({7, 8}, frozenset(), {(7, "b"), (8, "c")})
    gallery.bring_back(Forgotten(frozenset({7})))
    assert gallery.forgotten == ({8}, frozenset(), {(8, "c")})


def test_a_row_that_is_not_an_embedding_is_named_by_its_path() -> None:
    """NaN is refused with the number and the path of its row."""
    rows = np.array([[1, 0], [np.nan, 0]], np.float32)
    with pytest.raises(
        InputError, match=r"embeddings: row 1 \(x/b\.jpg\) is not an embedding: its norm is nan"
    ):
        Gallery(2).add(rows, paths=["a.jpg", "x/b.jpg"])
