import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reidgallery.input import UNLABELED

from reidexport.data import Dataset, ImageRecord, load_dataset
from reidexport.errors import DatasetError, ImageError
from reidexport.evaluation.protocol import check_scorable, copy_warnings
from reidexport.evaluation.scoring import evaluate, score_features
from reidexport.metrics.distances import unit_rows
from reidexport.metrics.rerank import k_reciprocal
from tests.reidexport.evaluation.test_scoring import Thumbnails


def make_dataset(root: Path, query: Sequence[str], gallery: Sequence[str], **options: Any) -> Dataset:
    """Images of noise, each another, under these names."""
    for place, (part, name) in enumerate(
        [("query", each) for each in query] + [("gallery", each) for each in gallery]
    ):
        path = root / part / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(place).integers(0, 256, (16, 8, 3), np.uint8)
        Image.fromarray(noise).save(path, "PNG")
    return load_dataset(root, **options)


def slow_scores(dataset: Dataset, distmat: Any) -> tuple[float, float, int]:
    """Rank-1, mAP and the number of queries with a match, one pair at a time, with files compared by their bytes."""
    firsts, precisions = [], []
    gallery = dataset.scored_gallery
    for q, query in enumerate(dataset.query):
        ranked = []
        for g in sorted(range(len(gallery)), key=lambda g: (distmat[q][g], g)):
            same_person = gallery[g].pid == query.pid
            if dataset.same_camera == "drop":
                left_out = same_person and gallery[g].camid == query.camid
            else:
                left_out = same_person and gallery[g].path.read_bytes() == query.path.read_bytes()
            if not left_out:
                ranked.append(same_person)
        found = [place for place, hit in enumerate(ranked, 1) if hit]
        if found:
            firsts.append(found[0] == 1)
            precisions.append(np.mean([count / place for count, place in enumerate(found, 1)]))
    return float(np.mean(firsts)), float(np.mean(precisions)), len(firsts)


@pytest.mark.parametrize("rerank", [False, True])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("same_camera", ["drop", "keep"])
def test_scores_are_those_of_the_definition(
    same_camera: Any, metric: Any, rerank: bool, tmp_path: Path
) -> None:
    """Junk, distractors, copies of queries and queries without a match: as counted one pair at a time."""
    rng = np.random.default_rng(3)
    names = [
        f"{pid:04d}_c{cam}s1_{number:06d}_00.png"
        for number, (pid, cam) in enumerate(rng.integers(1, 5, (40, 2)))
    ]
    junk = ["-1_c1_a.png", "0000_c2_b.png"]
    dataset = make_dataset(
        tmp_path, [*names[:8], "0009_c1_x.png"], [*names[8:], *junk], same_camera=same_camera
    )
    for place in range(4):  # under a name of the same person and another camera
        source = dataset.query[place]
        shutil.copy(source.path, tmp_path / f"gallery/{source.pid:04d}_c7_copy{place}.png")
    dataset = load_dataset(tmp_path, same_camera=same_camera)
    result = evaluate(Thumbnails(), dataset, metric=metric, rerank=rerank)
    feats = result.q_feats, result.g_feats
    if metric == "cosine":
        feats = unit_rows(feats[0]), unit_rows(feats[1])
    squares = ((feats[0][:, None].astype("f8") - feats[1][None].astype("f8")) ** 2).sum(axis=2)
    distmat = k_reciprocal(*feats) if rerank else squares
    rank1, mean_ap, num_valid = slow_scores(dataset, distmat)
    assert result.metrics.num_valid_query == num_valid < len(dataset.query)
    assert result.metrics.rank1 == pytest.approx(rank1, abs=1e-12)
    assert result.metrics.mAP == pytest.approx(mean_ap, abs=1e-9)
    assert result.record("a").same_camera == result.same_camera == same_camera


def test_kept_cameras_count_in_thresholds_and_ranked_lists(tmp_path: Path) -> None:
    """With one camera, every pair of one person is genuine but that of a query with itself, which no list shows."""
    names = [f"{pid}_c1_{number}.png" for pid in (1, 2) for number in range(3)]
    dataset = make_dataset(tmp_path, names, names, same_camera="keep")
    for record in dataset.query:
        shutil.copy(record.path, tmp_path / "gallery" / record.path.name)
    result = evaluate(Thumbnails(), dataset)
    assert result.roc().num_genuine == 2 * 3 * 2
    rows, _ = result.nearest(range(6), 6)
    for query, found in enumerate(rows):
        assert sorted(found[found >= 0]) == [row for row in range(6) if row != query]


def test_one_camera_says_what_to_do(tmp_path: Path) -> None:
    """Before anything is embedded: how many queries could be scored, and with which option."""
    dataset = make_dataset(tmp_path, ["1_c1_a.png", "2_c1_b.png"], ["1_c1_c.png", "3_c1_d.png"])
    words = (
        r"none of the 2 queries has an image of its person by another camera in the gallery \(all images are of "
        r"camera 1\)\. With --same-camera keep .*, and 1 queries have a match"
    )
    session = Thumbnails()
    with pytest.raises(DatasetError, match=words):
        evaluate(session, dataset)
    assert session.paths == []
    assert evaluate(session, replace(dataset, same_camera="keep")).metrics.num_valid_query == 1


def test_names_without_cameras_need_the_option(tmp_path: Path) -> None:
    """A folder per person with plain names has no cameras: refused with the first image and the option that helps."""
    dataset = make_dataset(tmp_path, ["anna/1.png", "bert/1.png"], ["anna/2.png", "bert/2.png"])
    assert {record.camid for record in dataset.query} == {UNLABELED}
    with pytest.raises(
        DatasetError, match=r"4 of 4 images tell no camera, first .*anna/1.png.*--same-camera keep"
    ):
        check_scorable(dataset)
    check_scorable(replace(dataset, same_camera="keep"))


def test_what_cannot_be_scored_at_all_is_said(tmp_path: Path) -> None:
    """Other persons in the gallery, the queries alone in it, or no gallery."""
    dataset = make_dataset(tmp_path, ["1_c1_a.png"], ["2_c2_b.png"])
    with pytest.raises(
        DatasetError, match=r"found 2 cameras\)\. Expected the same persons, under the same numbers"
    ):
        check_scorable(dataset)
    with pytest.raises(DatasetError, match="found 1 query and 0 gallery images of persons, expected both"):
        check_scorable(replace(dataset, gallery=()))
    itself = replace(dataset, gallery=dataset.query, same_camera="keep")
    with pytest.raises(DatasetError, match="none of the 1 queries has another image of its person"):
        check_scorable(itself)
    with pytest.raises(ImageError, match=r"gone.png: cannot be read \(No such file"):
        check_scorable(replace(itself, gallery=(ImageRecord(tmp_path / "gone.png", 1, 0),)))


def test_copies_of_queries_are_warned_of(tmp_path: Path) -> None:
    """By bytes, not names: as another camera's, as another person's, and where cameras are kept, as itself."""
    dataset = make_dataset(tmp_path, ["1_c1_a.png", "2_c1_b.png", "3_c1_c.png"], ["1_c2_d.png", "2_c2_e.png"])
    assert copy_warnings(dataset) == ()
    for place, name in enumerate(["1_c3_copy.png", "9_c1_copy.png", "3_c1_copy.png"]):
        shutil.copy(dataset.query[place].path, tmp_path / "gallery" / name)
    dataset = load_dataset(tmp_path)
    person, camera = copy_warnings(dataset)
    assert person.startswith("1 of 3 queries are in the gallery too, byte for byte (first ")
    assert "query/2_c1_b.png and " in person
    assert person.endswith(
        "gallery/9_c1_copy.png), as another person, so each counts as a wrong answer. Correct the names."
    )
    assert "as another camera, so each is found at once and raises the scores" in camera
    assert "query/1_c1_a.png and " in camera and "gallery/1_c3_copy.png" in camera
    shutil.copy(dataset.query[2].path, tmp_path / "gallery/3_c4_copy.png")  # after one of its own camera
    assert "2 of 3 queries are in the gallery too" in copy_warnings(load_dataset(tmp_path))[1]
    kept = evaluate(Thumbnails(), replace(dataset, same_camera="keep"))
    assert kept.warnings[1].startswith("2 of 3 queries are in the gallery too, byte for byte (first ")
    assert kept.warnings[1].endswith(", and are left out of their own ranked lists.")
    assert kept.record("a").warnings == kept.warnings


def test_dropping_is_what_it_was(drawn_dataset: Dataset) -> None:
    """The default compares no files: records of files that are gone are scored by their labels."""
    parts = drawn_dataset.query, drawn_dataset.gallery
    records = [tuple(replace(record, path=Path("gone")) for record in part) for part in parts]
    feats = [np.random.default_rng(0).normal(size=(len(part), 8)) for part in records]
    assert score_features(*feats, *records, metric="cosine").num_valid_query == len(records[0])
