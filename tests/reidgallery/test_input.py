"""What galleries refuse, in memory and in Milvus alike, and in which words."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from reidgallery import Gallery, MilvusGallery, SearchFilter
from reidruntime import InputError

from tests.standins.milvus import ARTIFACT, DIM

AnyGallery = Gallery | MilvusGallery
KINDS = ("in memory", "in Milvus")


@pytest.fixture(scope="module", params=KINDS)
def labeled(folder: Path, request: pytest.FixtureRequest) -> Iterator[AnyGallery]:
    """Two labeled rows and one without labels."""
    gallery: AnyGallery = Gallery(DIM, manifest_sha256=ARTIFACT)
    if request.param == "in Milvus":
        file = str(folder / "people.db")
        gallery = MilvusGallery(file, DIM, manifest_sha256=ARTIFACT, collection="labeled")
    rows = np.eye(3, DIM, dtype=np.float32)
    gallery.add(rows[:2], pids=[1, 2], camids=[0, 1], times=[3, 4], paths=["a.jpg", "b.jpg"])
    gallery.add(rows[2:], paths=["c.jpg"])
    yield gallery


@pytest.fixture(params=KINDS)
def empty(new_gallery: Callable[[], MilvusGallery], request: pytest.FixtureRequest) -> AnyGallery:
    """A gallery without rows."""
    return new_gallery() if request.param == "in Milvus" else Gallery(DIM)


def wrong_calls() -> list[tuple[Callable[[AnyGallery], object], str]]:
    """Calls that a gallery of two labeled and one unlabeled rows refuses, and its words."""
    ones = np.ones((1, DIM), np.float32)
    return [
        (lambda g: g.add(ones[:, :3]), r"embeddings must be float32 of shape \(N, 24\), got float32"),
        (
            lambda g: g.add(np.ones((2, DIM))),
            r"must be float32 of shape \(N, 24\), got float64 of shape \(2, 24\)",
        ),
        (lambda g: g.add(ones * np.nan), r"embeddings: row 0 is not an embedding: its norm is nan"),
        (lambda g: g.add(ones * 1e20), r"norm is 4.9e\+20, expected 0 or between 1e-12 and 1e\+12"),
        (lambda g: g.add(ones, pids=[1, 2]), r"pids must be 1 integers, got int64 of shape \(2,\)"),
        (lambda g: g.add(ones, times=[1, 2]), r"times must be 1 integers, got int64 of shape \(2,\)"),
        (lambda g: g.add(ones, camids=[0.5]), r"camids must be 1 integers, got float64"),
        (
            lambda g: g.add(ones, pids=[2**64 - 1]),
            r"pids must be less than 2\*\*63, got 18446744073709551615",
        ),
        (lambda g: g.add(ones, pids=[-7]), r"pids must be at least -1, or UNLABELED \(-2\), got -7"),
        (lambda g: g.add(ones, camids=[-5]), r"camids must be at least 0, or UNLABELED \(-2\), got -5"),
        (lambda g: g.add(ones, times=[-1]), r"times must be at least 0, or UNLABELED \(-2\), got -1"),
        (lambda g: g.search(ones, camids=[-1]), r"camids must be at least 0, or UNLABELED \(-2\), got -1"),
        (lambda g: g.add(ones, paths=["a", "b"]), r"paths must be 1 texts, got 2"),
        (lambda g: g.add(ones, paths=["a\ud800"]), r"paths must be text that .*, got 'a\\ud800'"),
        (
            lambda g: g.add(ones, manifest_sha256="cd" * 32),
            r"embeddings were made by another artifact .*cdcdcdcd",
        ),
        (lambda g: g.search(ones, manifest_sha256="cd" * 32), r"queries were made by another artifact"),
        (lambda g: g.search(ones[0]), r"queries must be float32 of shape \(N, 24\), got .*\(24,\)"),
        (lambda g: g.search(ones * np.inf), r"queries: row 0 is not an embedding: its norm is inf"),
        (lambda g: g.search(ones, 0), r"k must be at least 1, got 0"),
        (
            lambda g: g.search(ones, filter=SearchFilter(other_cameras=True), camids=[1]),
            r"needs the camid of every row, which 1 of 3",
        ),
        (
            lambda g: g.search(ones, filter=SearchFilter(among_camids=[1])),
            r"among_camids needs the camid .*the first: row 2 c\.jpg",
        ),
        (
            lambda g: g.search(ones, filter=SearchFilter(since=5)),
            r"A time window needs the time of every row, which 1 of 3 .*row 2 c",
        ),
        (
            lambda g: g.search(ones, filter=SearchFilter(since=5, until=4)),
            r"since must not be after until, got 5 and 4",
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
            lambda g: g.extend(Gallery(DIM, metric="euclidean")),
            r"compares by cosine, the other one by euclidean",
        ),
        (lambda g: g.extend(Gallery(4)), r"embeddings must be float32 of shape \(N, 24\)"),
    ]


@pytest.mark.parametrize("number", range(len(wrong_calls())))
def test_what_does_not_fit_is_refused_in_words(labeled: AnyGallery, number: int) -> None:
    """Wrong shapes, labels, artifacts and filters are errors that say so; the gallery stays as it was."""
    call, words = wrong_calls()[number]
    with pytest.raises(InputError, match=words):
        call(labeled)
    kept = labeled.labels(labeled.row_numbers())
    assert (len(labeled), kept.paths, len(kept.camids)) == (3, ["a.jpg", "b.jpg", "c.jpg"], 3)


def test_other_cameras_needs_the_cameras_of_the_queries(empty: AnyGallery) -> None:
    """A query of an unknown camera cannot be kept from its own."""
    empty.add(np.eye(2, DIM, dtype=np.float32), camids=[0, 1])
    with pytest.raises(InputError, match="other_cameras needs the camids of the queries"):
        empty.search(np.eye(2, DIM, dtype=np.float32), filter=SearchFilter(other_cameras=True))


def test_junk_is_left_out_only_where_it_can_be_told(empty: AnyGallery) -> None:
    """Rows of a person need a camera; those of nobody (junk, distractors) are told apart without one."""
    rows = np.eye(4, DIM, dtype=np.float32)
    asked = {"filter": SearchFilter(exclude_junk=True), "pids": [1], "camids": [0]}
    empty.add(rows[:2], pids=[-1, 0])
    empty.add(rows[2:3], pids=[1], camids=[0])
    assert empty.search(rows[2:3], 2, **asked).indices.tolist() == [[1, -1]]
    empty.add(rows[3:], pids=[1], paths=["d.jpg"])
    with pytest.raises(
        InputError, match=r"exclude_junk needs the camid of every row, which 1 of 4 .*row 3 d\.jpg"
    ):
        empty.search(rows[2:3], 2, **asked)
