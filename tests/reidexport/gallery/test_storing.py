"""``store`` and ``forget``: embeddings into Milvus and out again, whatever happens on the way."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reidgallery import Gallery, MilvusGallery, load_gallery
from reidgallery.input import UNLABELED, LabeledRows

from reidexport.embed.files import read_gallery, write_embeddings
from reidexport.embed.table import open_table
from reidexport.errors import InputError
from reidexport.gallery.storing import store_in_gallery
from tests.conftest import Run
from tests.standins.runtime_models import DIM, small_manifest

NUM_PARTS, PART_ROWS = 4, 50


def names_of(part: int) -> list[str]:
    """Names of ten persons in three cameras, a frame each."""
    rows = range(part * PART_ROWS, (part + 1) * PART_ROWS)
    return [f"crops/{row % 10 + 1:04d}_c{row % 3 + 1}s2_{row:06d}_00.jpg" for row in rows]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder of Parquet files as bulk embedding leaves it, with a table of errors beside the embeddings."""
    folder = tmp_path / "parts"
    (folder / "_errors").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part in range(NUM_PARTS):
        rows = rng.standard_normal((PART_ROWS, DIM)).astype(np.float32)
        write_embeddings(folder / f"part-{part:08d}.parquet", names_of(part), [rows], small_manifest())
    pq.write_table(
        pa.table({"path": ["bad.jpg"], "error": ["cut off"]}), folder / "_errors" / "part-0.parquet"
    )
    return folder


def test_a_folder_is_stored_searched_and_written_back(parts: Path, tmp_path: Path, run: Run) -> None:
    """Every part goes in once, answers are those of the files, and the export holds the same rows with labels."""
    stored, out = f"milvus:{tmp_path / 'people.db'}", tmp_path / "out.parquet"
    for _ in range(2):
        done = run("store", parts, stored)
        assert (done.returncode, done.stdout) == (0, f"{stored}: 200 embeddings added, now 200\n")
    query = parts / "part-00000002.parquet"
    for options in ([], ["--other-cameras"], ["--since", "2000030", "--until", "2000090", "--camids", "1,2"]):
        printed = [run("search", place, query, *options).stdout for place in (stored, parts)]
        assert printed[0] == printed[1] != ""
    done = run("store", stored, out)
    assert (done.returncode, done.stdout) == (0, f"{out}: 200 embeddings written\n")
    before, after = read_gallery(parts), read_gallery(out)
    assert np.array_equal(np.concatenate(before.parts), np.concatenate(after.parts))
    for name in ("pids", "camids", "times", "paths", "metric", "manifest_sha256", "dim"):
        assert list(np.atleast_1d(getattr(before, name))) == list(np.atleast_1d(getattr(after, name)))
    assert before.times[:2].tolist() == [2000000, 2000001]
    again = f"milvus:{tmp_path / 'again.db'}"
    assert run("store", out, again).stdout == f"{again}: 200 embeddings added, now 200\n"


def test_labels_of_a_table_come_before_those_of_names(tmp_path: Path, run: Run) -> None:
    """Columns pid, camid and time are taken where they are; an empty cell is not known."""
    path = tmp_path / "labeled.parquet"
    write_embeddings(path, names_of(0)[:2], [np.eye(2, DIM, dtype=np.float32)], small_manifest())
    table = pq.read_table(path).append_column("pid", pa.array([77, None], pa.int32()))
    pq.write_table(table.append_column("time", pa.array([1764086400000, 5])), path)
    gallery = read_gallery(path)
    assert (gallery.pids.tolist(), gallery.camids.tolist()) == ([77, UNLABELED], [0, 1])
    assert gallery.times.tolist() == [1764086400000, 5]
    done = run("search", path, path, "--since", "2025-11-25", "--until", "2025-11-25T17:00+01:00", "-k", 3)
    assert done.returncode == 0, done.stderr
    assert [line.split()[4] for line in done.stdout.splitlines() if line.startswith("   1")] == [
        "2025-11-25T16:00:00.000Z"
    ] * 2


def test_an_index_is_chosen_and_its_recall_printed(parts: Path, tmp_path: Path, run: Run) -> None:
    """The recall follows what was stored; a file has no index, and milvus-lite no GPU."""
    stored = f"milvus:{tmp_path / 'people.db'}"
    done = run("store", parts, stored, "--index", "approximate")
    assert done.returncode == 0, done.stderr
    line = done.stdout.splitlines()[1]
    assert line.startswith("approximate index: recall@10 ")
    assert line.endswith("against exact search, measured on 100 of the rows")
    assert float(line.split()[3]) > 0.95
    done = run("store", stored, tmp_path / "out.parquet", "--index", "exact")
    assert (done.returncode, "--index is for a gallery in Milvus" in done.stderr) == (2, True)
    done = run("store", parts, stored, "--index", "gpu-exact")
    assert (done.returncode, "milvus-lite has no GPU" in done.stderr) == (2, True)


STORING = """
import itertools, os, signal, sys
from reidgallery.milvus import gallery as milvus_gallery
from reidexport.cli import main
milvus_gallery._MESSAGE_BYTES = 4 * 8 * 10  # ten rows in one call
calls, count = itertools.count(1), int(sys.argv.pop(1))
connect = milvus_gallery.Client

def connect_until_killed(*arguments, **options):
    client = connect(*arguments, **options)
    upsert = client.upsert

    def upsert_until_killed(*arguments):
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return upsert(*arguments)

    client.upsert = upsert_until_killed
    return client

milvus_gallery.Client = connect_until_killed
main()
"""


def test_an_import_killed_twice_and_run_again_is_whole(parts: Path, tmp_path: Path) -> None:
    """After kill -9 in the middle of a part, and again, the same command leaves every path once, in order."""
    path = tmp_path / "people.db"
    for call, expected in ((7, 60), (16, 150)):
        command = [sys.executable, "-c", STORING, str(call), "store", str(parts), f"milvus:{path}"]
        killed = subprocess.run(command, check=False, capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        with MilvusGallery(str(path)) as gallery:
            assert len(gallery) == expected
    command[3] = "0"
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == f"milvus:{path}: 200 embeddings added, now 200\n"
    with MilvusGallery(str(path)) as gallery:
        paths = gallery.labels(np.arange(200)).paths
        found = gallery.search(np.concatenate(read_gallery(parts).parts), 1)
    assert paths == [name for part in range(NUM_PARTS) for name in names_of(part)]
    assert found.indices.ravel().tolist() == list(range(200))


@pytest.mark.parametrize("kind", ["gallery", "milvus"])
def test_forgotten_persons_are_in_no_answer(kind: str, parts: Path, tmp_path: Path, run: Run) -> None:
    """No search, count or export finds them, in a file and in Milvus; forgetting them again removes nothing."""
    place = str(tmp_path / "people.gallery")
    whole = read_gallery(parts)
    if kind == "milvus":
        place = f"milvus:{tmp_path / 'people.db'}"
        run("store", parts, place)
    else:
        whole.save(place)
    done = run("forget", place, "--pids", "7,9,55")
    assert (done.returncode, done.stdout) == (0, f"{place}: 40 embeddings removed, 160 left\n")
    assert "no image of person 55\n" in done.stderr
    done = run("forget", place, "--pids", "7,55")
    assert (done.returncode, done.stdout) == (1, f"{place}: 0 embeddings removed, 160 left\n")
    assert "no image of person 7: forgotten already" in done.stderr
    done = run("store", parts, place, "--on-duplicate", "skip")
    assert (done.returncode, "40" in done.stdout, "now 160" in done.stdout) == (0, True, True)
    result = tmp_path / "found.json"
    query = parts / "part-00000000.parquet"
    assert run("search", place, query, "-k", 200, "--json", result).returncode == 0
    hits = [hit for query in json.loads(result.read_text())["queries"] for hit in query["hits"]]
    assert len(hits) == 50 * 160
    assert not {hit["pid"] for hit in hits} & {7, 9}
    if kind == "milvus":
        run("store", place, tmp_path / "out.parquet")
        left = read_gallery(tmp_path / "out.parquet")
    else:
        left = load_gallery(place)
        assert whole.parts[0][6].tobytes() not in Path(place).read_bytes()
    assert left.paths == [name for name in whole.paths if not name.startswith(("crops/0007", "crops/0009"))]


def test_what_cannot_be_forgotten_is_refused(parts: Path, tmp_path: Path, run: Run) -> None:
    """Other files, missing galleries and malformed persons end with status 2 and a line that says why."""
    part = parts / "part-00000000.parquet"
    for arguments, words in (
        ((part, "--pids", "7"), "persons are removed from .gallery files and from galleries in Milvus"),
        ((part, "--pids", "7"), "reidexport store"),
        ((part,), "Pass --pids, for example 7,9, or --paths"),
        ((tmp_path / "none.gallery", "--pids", "7"), "none.gallery: cannot be read"),
        ((f"milvus:{tmp_path / 'none.db'}", "--pids", "7"), "none.db: there is no such file"),
        ((part, "--pids", "7;9"), "--pids '7;9': expected persons, for example 7,9"),
    ):
        done = run("forget", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr


def test_folders_that_do_not_fit_are_refused(parts: Path, tmp_path: Path, run: Run) -> None:
    """No embeddings, parts of two artifacts, a damaged part and a path in two parts are named; nothing is stored."""
    stored = f"milvus:{tmp_path / 'people.db'}"
    with pytest.raises(InputError, match=r"_errors: no \.parquet file in this folder holds embeddings"):
        open_table(parts / "_errors")
    extra = parts / "part-00000009.parquet"
    write_embeddings(extra, ["x.jpg"], [np.ones((1, DIM), np.float32)], small_manifest(metric="euclidean"))
    done = run("store", parts, stored)
    assert (done.returncode, "differ in their metric (euclidean, cosine)" in done.stderr) == (2, True)
    write_embeddings(extra, names_of(1)[:1], [np.ones((1, DIM), np.float32)], small_manifest())
    done = run("store", parts, stored)
    assert (done.returncode, "the path occurs twice" in done.stderr) == (2, True)
    extra.write_bytes(extra.read_bytes()[:-40])
    done = run("store", parts, stored)
    assert (done.returncode, "part-00000009.parquet: not a file that" in done.stderr) == (2, True)
    assert not (tmp_path / "people.db").exists()
    done = run("store", stored, tmp_path / "out.csv")
    assert (done.returncode, "out.csv: expected *.gallery, *.parquet, *.npz, milvus:" in done.stderr) == (
        2,
        True,
    )


@pytest.mark.parametrize("kind", ["gallery", "milvus"])
def test_images_are_forgotten_by_path(kind: str, parts: Path, tmp_path: Path, run: Run) -> None:
    """A path or a pattern; what matches nothing is named; a repeated import leaves them out unless told otherwise."""
    place = str(tmp_path / "people.gallery") if kind == "gallery" else f"milvus:{tmp_path / 'people.db'}"
    assert run("store", parts, place).returncode == 0
    first = names_of(0)[0]
    done = run("forget", place, "--paths", first, "--paths", "*_c2s2_*", "--paths", "other/*")
    assert (done.returncode, "no path other/*" in done.stderr) == (0, True)
    num_left = int(done.stdout.split()[-2])
    assert done.stdout == f"{place}: {200 - num_left} embeddings removed, {num_left} left\n"
    done = run("forget", place, "--paths", first)
    assert (done.returncode, f"no path {first}: forgotten already" in done.stderr) == (1, True)
    done = run("store", parts, place, "--on-duplicate", "skip")
    assert (done.returncode, f"now {num_left}" in done.stdout) == (0, True)
    done = run("store", parts, place, "--on-duplicate", "skip", "--include-forgotten")
    assert (done.returncode, "now 200" in done.stdout) == (0, True)
    done = run("store", parts, place, "--on-duplicate", "error")
    assert (done.returncode, "200 of the paths are in the gallery already" in done.stderr) == (2, True)


def test_galleries_are_stored_in_every_kind_of_file(parts: Path, tmp_path: Path, run: Run) -> None:
    """From parts to a gallery, .npz, Parquet, Milvus and back: the same rows and labels; and who was forgotten."""
    people = tmp_path / "people.gallery"
    assert run("store", parts, people).stdout == f"{people}: 200 added; now 200 embeddings\n"
    done = run("store", parts, people)
    assert (done.returncode, "200 of the paths are in the gallery already" in done.stderr) == (2, True)
    assert run("forget", people, "--pids", "7").returncode == 0
    stored = f"milvus:{tmp_path / 'people.db'}"
    steps = [people, tmp_path / "o.npz", tmp_path / "a.gallery", stored, tmp_path / "b.gallery"]
    for source, target in [*pairwise(steps), (people, tmp_path / "o.parquet")]:
        done = run("store", source, target)
        assert (done.returncode, "180" in done.stdout) == (0, True), done.stderr
    before = load_gallery(people)
    for name in ("o.npz", "a.gallery", "b.gallery", "o.parquet"):
        after = read_gallery(tmp_path / name)
        assert np.array_equal(np.concatenate(before.parts), np.concatenate(after.parts))
        for field in ("pids", "camids", "times", "paths", "metric", "manifest_sha256", "dim"):
            assert list(np.atleast_1d(getattr(before, field))) == list(np.atleast_1d(getattr(after, field)))
    direct = f"milvus:{tmp_path / 'direct.db'}"
    assert run("store", people, direct).returncode == 0
    assert "180 embeddings added, 0 left out as the gallery has their paths, 20 as forgotten, now 180" in (
        run("store", parts, direct).stdout
    )
    done = run("store", parts, tmp_path / "c.parquet")
    assert (done.returncode, "expected a .gallery file or a gallery in Milvus" in done.stderr) == (2, True)


def test_a_gallery_written_while_rows_are_stored_is_not_lost(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who makes the gallery while the source is read keeps it, and the command says so."""
    path, theirs = tmp_path / "people.gallery", Gallery(DIM)
    theirs.add(np.ones((3, DIM), np.float32))

    def rows(*_: object) -> Iterator[LabeledRows]:
        theirs.save(path)
        yield from read_gallery(parts).labeled_parts()

    monkeypatch.setattr("reidexport.gallery.storing.relabeled", rows)
    with pytest.raises(InputError, match="another program has written the gallery since it was looked at"):
        store_in_gallery(str(parts), path)
    assert len(load_gallery(path)) == 3


def test_labels_of_a_table_are_stored(parts: Path, tmp_path: Path, run: Run) -> None:
    """A folder of parts gets them on the way into a gallery; the others keep what their names tell."""
    (tmp_path / "l.csv").write_text(f"path,person\n{names_of(0)[0]},77\n")
    done = run("store", parts, tmp_path / "o.gallery", "--labels", tmp_path / "l.csv")
    assert (done.returncode, "199 of 200 images have no row there" in done.stderr) == (0, True)
    assert load_gallery(tmp_path / "o.gallery").pids[:2].tolist() == [77, 2]
    done = run("store", tmp_path / "o.gallery", tmp_path / "o.npz", "--labels", tmp_path / "l.csv")
    assert (done.returncode, "are for galleries that are added to" in done.stderr) == (2, True)


@pytest.mark.parametrize("kind", ["gallery", "milvus"])
def test_embeddings_of_an_unknown_artifact_are_not_mixed_with_others(
    kind: str, tmp_path: Path, run: Run
) -> None:
    """Known and unknown are refused both ways, and two artifacts; unknown and unknown are stored together."""
    rows = np.eye(2, DIM, dtype=np.float32)
    for name, sha256 in (("known", "ab" * 32), ("unknown", None), ("unknown2", None)):
        gallery = Gallery(DIM, manifest_sha256=sha256)
        gallery.add(rows, paths=[f"{name}1", f"{name}2"])
        gallery.save(tmp_path / f"{name}.gallery")
    known, unknown = tmp_path / "known.gallery", tmp_path / "unknown.gallery"
    for first, second, words in (
        (known, unknown, "unknown.gallery does not say which artifact made its embeddings"),
        (unknown, known, "the gallery does not say which artifact made it"),
    ):
        place = tmp_path / f"to-{second.stem}.gallery"
        target = str(place) if kind == "gallery" else f"milvus:{place.with_suffix('.db')}"
        assert run("store", first, target).returncode == 0
        done = run("store", second, target)
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    done = run("store", tmp_path / "unknown2.gallery", target)
    assert (done.returncode, "now 4" in done.stdout) == (0, True), done.stderr


def test_force_is_refused_where_nothing_is_replaced(parts: Path, tmp_path: Path, run: Run) -> None:
    """A gallery is added to: --force would be ignored."""
    for target in (tmp_path / "o.gallery", f"milvus:{tmp_path / 'o.db'}"):
        done = run("store", parts, target, "--force")
        assert done.returncode == 2
        assert f"{target}: --force is for .parquet and .npz; a gallery is added to" in done.stderr
    assert not list(tmp_path.glob("o.*"))


def test_an_empty_gallery_is_written_and_read(tmp_path: Path, run: Run) -> None:
    """No rows, no error, on the whole way."""
    empty, stored, out = (
        tmp_path / "none.gallery",
        f"milvus:{tmp_path / 'none.db'}",
        tmp_path / "none.parquet",
    )
    Gallery(DIM, metric="euclidean").save(empty)
    assert run("store", empty, stored).stdout == f"{stored}: 0 embeddings added, now 0\n"
    assert run("store", stored, out).stdout == f"{out}: 0 embeddings written\n"
    again = read_gallery(out)
    assert (len(again), again.dim, again.metric, again.manifest_sha256) == (0, DIM, "euclidean", None)
