"""The gallery in Milvus, for real in milvus-lite: the answers of a Gallery, and rows that outlive a kill."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from reidgallery import Gallery, SearchFilter
from reidgallery.input import UNLABELED, Forgotten, LabeledRows
from reidgallery.milvus import gallery as milvus_gallery
from reidgallery.milvus.gallery import MilvusGallery
from reidruntime import InputError
from reidruntime.artifact.manifest import Metric

from tests.standins.galleries import METRICS, people
from tests.standins.milvus import ARTIFACT, DIM, assert_same_but_for_ties, filled


@pytest.mark.parametrize("metric", METRICS)
def test_answers_are_those_of_a_gallery(new_gallery: Callable[..., MilvusGallery], metric: Metric) -> None:
    """Every filter, alone and together, finds the rows and distances that Gallery finds; the rest is padded."""
    plain, stored = filled(metric), new_gallery(metric)
    stored.extend(plain)
    rng = np.random.default_rng(1)
    queries = people(rng, 12, DIM)
    queries[3], queries[4] = 0, plain.parts[0][0]
    q_pids, q_camids = rng.integers(0, 5, 12), rng.integers(0, 4, 12)
    for other_cameras in (False, True):
        for exclude_junk in (False, True):
            for among_camids in (None, {1, 2}, set[int]()):
                expected, found = (
                    gallery.search(
                        queries,
                        250,
                        filter=SearchFilter(other_cameras, exclude_junk, among_camids),
                        pids=q_pids,
                        camids=q_camids,
                        manifest_sha256=ARTIFACT,
                    )
                    for gallery in (plain, stored)
                )
                assert_same_but_for_ties(found, expected)
    assert_same_but_for_ties(stored.search(queries, 20), plain.search(queries, 20))
    assert stored.search(queries[:0], 3).indices.shape == (0, 3)


@pytest.mark.parametrize(("since", "until"), [(30, None), (None, 60), (30, 60), (200, None), (40, 40)])
def test_time_windows_are_those_of_a_gallery(
    new_gallery: Callable[..., MilvusGallery], since: int | None, until: int | None
) -> None:
    """Rows of the first and the last moment are found, and others are not, alone and beside another filter."""
    plain, stored = filled("cosine"), new_gallery()
    stored.extend(plain)
    queries = people(np.random.default_rng(2), 4, DIM)
    for among_camids in (None, {0, 3}):
        expected, found = (
            gallery.search(
                queries, 200, filter=SearchFilter(since=since, until=until, among_camids=among_camids)
            )
            for gallery in (plain, stored)
        )
        assert_same_but_for_ties(found, expected)
        times = plain.times[found.indices[found.indices >= 0]]
        assert ((times >= (since or 0)) & (times <= (until or 99))).all()


def test_all_rows_come_out_again_in_order(
    new_gallery: Callable[..., MilvusGallery], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of any size hold every row that was not removed, bit for bit, with its number and labels."""
    plain, stored = filled("cosine"), new_gallery()
    stored.extend(plain)
    stored.remove([2])
    kept = np.flatnonzero(plain.pids != 2)
    plain.remove([2])
    monkeypatch.setattr("reidgallery.milvus.gallery._MESSAGE_BYTES", 4 * DIM * 7)
    parts = list(stored.numbered_parts())
    assert len(parts) > 10
    assert np.concatenate([rows for rows, _ in parts]).tolist() == kept.tolist()
    copy = Gallery(DIM)
    for part in stored.labeled_parts():
        copy.add(**part._asdict())
    assert np.array_equal(np.concatenate(copy.parts), np.concatenate(plain.parts))
    for name in ("pids", "camids", "times", "paths"):
        assert list(getattr(copy, name)) == list(getattr(plain, name))


def test_labels_come_back_as_they_went_in(new_gallery: Callable[..., MilvusGallery]) -> None:
    """Pids, camids, times and paths of any rows, in any order and twice; a row that is not there is an error."""
    plain, stored = filled("cosine"), new_gallery()
    stored.extend(plain)
    rows = np.array([7, 199, 0, 7])
    *found, paths = stored.labels(rows)
    *expected, expected_paths = plain.labels(rows)
    assert [ids.tolist() for ids in found] == [ids.tolist() for ids in expected]
    assert paths == expected_paths
    assert stored.labels(rows[:0]).paths == []
    with pytest.raises(InputError, match=r"people\.db: has no row 200"):
        stored.labels(np.array([3, 200]))


def test_a_path_stands_for_one_row(new_gallery: Callable[..., MilvusGallery]) -> None:
    """Adding a path again replaces its row where it is; rows without a path are always new."""
    gallery = new_gallery()
    rows = np.eye(6, DIM, dtype=np.float32)
    gallery.add(rows[:3], pids=[1, 2, 3], camids=[0, 0, 0], paths=["a", "b", ""])
    gallery.add(rows[3:], pids=[4, 5, 6], camids=[1, 1, 1], paths=["", "b", "c"])
    assert len(gallery) == 5
    found = gallery.search(rows[[0, 2, 3, 4, 5]], 1)
    assert found.indices.ravel().tolist() == [0, 2, 3, 1, 4]
    np.testing.assert_allclose(found.distances, 0, atol=1e-6)
    pids, camids, _times, paths = gallery.labels(np.arange(5))
    assert (pids.tolist(), camids.tolist(), paths) == (
        [1, 5, 3, 4, 6],
        [0, 1, 0, 1, 1],
        ["a", "b", "", "", "c"],
    )


def test_removed_persons_are_gone(new_gallery: Callable[..., MilvusGallery]) -> None:
    """Neither searches nor counts nor labels find them; the others keep their rows, and new ones follow the last."""
    plain, gallery = filled("cosine"), new_gallery()
    gallery.extend(plain)
    rows = plain.parts[0]
    kept = np.flatnonzero(~np.isin(plain.pids, [3, -1]))
    assert gallery.remove([3, -1, 99]) == 200 - len(kept)
    assert gallery.remove([3]) == gallery.remove([]) == 0
    assert len(gallery) == len(kept)
    found = gallery.search(rows[:5], 200)
    assert sorted(found.indices[2][found.indices[2] >= 0].tolist()) == kept.tolist()
    gone = int(np.flatnonzero(plain.pids == 3)[0])
    with pytest.raises(InputError, match=f"has no row {gone}"):
        gallery.labels(np.array([gone]))
    gallery.add(rows[[gone]], pids=[7], paths=["new.jpg"])
    assert gallery.labels(np.array([kept[-1] + 1])).paths == ["new.jpg"]
    with pytest.raises(InputError, match="pids to remove must be at least -1, got -2"):
        gallery.remove([UNLABELED])


ADDING = """
import itertools, os, signal, sys
import numpy as np
from reidgallery.milvus import gallery as milvus_gallery
milvus_gallery._MESSAGE_BYTES = 4 * 64 * 100  # a hundred rows in one call
with milvus_gallery.MilvusGallery(sys.argv[1], 64) as gallery:
    calls, upsert = itertools.count(1), gallery._client.upsert

    def upsert_until_killed(*arguments):
        if next(calls) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return upsert(*arguments)

    gallery._client.upsert = upsert_until_killed
    rows = np.random.default_rng(0).standard_normal((2000, 64)).astype(np.float32)
    gallery.add(rows, pids=np.arange(2000), camids=[0] * 2000, paths=[f"{row}.jpg" for row in range(2000)])
"""


def test_rows_are_read_by_their_numbers(
    new_gallery: Callable[..., MilvusGallery], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers and embeddings are those of a Gallery, with gaps where persons were, whatever is read at once."""
    plain, stored = filled("cosine"), new_gallery()
    assert stored.row_numbers().tolist() == []
    stored.extend(plain)
    stored.remove([2])
    monkeypatch.setattr(milvus_gallery, "_ROWS_AT_ONCE", 32)
    monkeypatch.setattr(milvus_gallery, "_MESSAGE_BYTES", 5 * 4 * DIM)
    kept = np.flatnonzero(plain.pids != 2)
    assert stored.row_numbers().tolist() == kept.tolist()
    rows = np.random.default_rng(0).permutation(kept)[:40]
    assert np.array_equal(stored.embeddings(rows), plain.embeddings(rows))
    assert stored.embeddings(rows[:0]).shape == (0, DIM)
    gone = int(np.flatnonzero(plain.pids == 2)[0])
    with pytest.raises(InputError, match=f"has no row {gone}"):
        stored.embeddings(np.array([rows[0], gone]))


def test_killed_while_adding_and_run_again_every_row_is_there_once(tmp_path: Path) -> None:
    """After kill -9 in the middle, the same program leaves all rows, once, in order and with their labels."""
    path = tmp_path / "killed.db"
    command = [sys.executable, "-c", ADDING, str(path)]
    killed = subprocess.run([*command, "8"], check=False)
    assert killed.returncode == -signal.SIGKILL
    with MilvusGallery(str(path)) as gallery:
        assert 0 < len(gallery) < 2000
    subprocess.run([*command, "0"], check=True, capture_output=True)
    with MilvusGallery(str(path)) as gallery:
        assert len(gallery) == 2000
        assert gallery.labels(np.arange(2000)).paths == [f"{row}.jpg" for row in range(2000)]
        rows = np.random.default_rng(0).standard_normal((2000, 64)).astype(np.float32)
        found = gallery.search(rows[::100], 1)
    assert found.indices.ravel().tolist() == list(range(0, 2000, 100))
    np.testing.assert_allclose(found.distances, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("pids", "paths", "words"),
    [
        ([-7], ["x.jpg"], r"pids must be at least -1, or UNLABELED \(-2\), got -7"),
        ([1, 1], ["x.jpg"] * 2, r"x\.jpg: the path occurs twice"),
        ([1], ["\udcff.jpg"], r"udcff\.jpg': the path is not UTF-8"),
        ([1], ["x" * 70_000], r"x…: the path has 70000 bytes, Milvus stores 65535"),
    ],
)
def test_parts_are_checked_as_rows_are(
    new_gallery: Callable[..., MilvusGallery], pids: list[int], paths: list[str], words: str
) -> None:
    """What cannot be added is refused in words, as rows and as a part; the gallery stays as it was."""
    gallery, rows = new_gallery(), np.ones((len(pids), DIM), np.float32)
    labels = np.array(pids), np.zeros(len(pids), int), np.zeros(len(pids), int), paths
    with pytest.raises(InputError, match=words):
        gallery.add(rows, pids=pids, paths=paths)
    with pytest.raises(InputError, match=words):
        gallery.add_parts([LabeledRows(rows, *labels)])
    assert len(gallery) == 0


def test_two_rows_of_one_path_in_another_gallery_are_refused(
    new_gallery: Callable[..., MilvusGallery],
) -> None:
    """A copy would lose one of them: nothing is copied."""
    twice, gallery = Gallery(DIM), new_gallery()
    for _ in range(2):
        twice.add(np.ones((1, DIM), np.float32), paths=["a.jpg"])
    with pytest.raises(InputError, match=r"a\.jpg: the path occurs twice"):
        gallery.extend(twice)
    assert len(gallery) == 0


def test_the_forgotten_are_listed_in_milvus(new_gallery: Callable[..., MilvusGallery]) -> None:
    """Rows go by pid and by path, the list outlives the connection, and who is brought back is off it."""
    stored = new_gallery()
    rows = people(np.random.default_rng(4), 4, DIM)
    paths = ['x "y"\\.jpg', "b", "c", "d"]
    stored.add(rows, pids=[1, 2, 2, -1], paths=paths)
    assert stored.forgotten == Forgotten()
    assert stored.known_paths(["b", "", "z", paths[0]]) == {"b", paths[0]}
    assert stored.remove(paths=["d", "nowhere"]) == 1
    assert stored.forget([2, 5], paths=[paths[0]]) == 3
    again = new_gallery()
    assert (len(again), again.forgotten) == (0, ({2, 5}, {paths[0]}, {(2, "b"), (2, "c")}))
    again.bring_back(Forgotten(frozenset({5}), frozenset({paths[0], "never"})))
    assert stored.forgotten == ({2}, frozenset(), {(2, "b"), (2, "c")})
    again.bring_back(Forgotten(paths=frozenset({"b"})))
    assert stored.forgotten == ({2}, frozenset(), {(2, "c")})
    again.bring_back(Forgotten(frozenset({2})))
    assert stored.forgotten == Forgotten()
