"""``reidexport search`` and what it is made of: galleries from files, answers, contact sheets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from reidgallery import Gallery, Neighbors, SearchFilter, load_gallery
from reidgallery.input import UNLABELED
from reidruntime import Session, open_session

from reidexport.data import Dataset
from reidexport.embed.files import read_gallery, write_embeddings
from reidexport.errors import InputError
from reidexport.gallery.contact_sheets import answers_sheet
from reidexport.gallery.searching import SeenImage, search_gallery
from tests.conftest import Exported, Run
from tests.standins.runtime_models import DIM, small_manifest, write_overflowing

NAMES = ["0001_c1s1_000001_00.jpg", "x/0001_c2s1_000002_00.jpg", "-1_c3s1_000003_00.jpg", "street.jpg"]
ROWS = np.eye(4, DIM, dtype=np.float32) + 0.1


@pytest.fixture(params=[".gallery", ".npz", ".parquet"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Four embeddings in a file of each format, written in two blocks."""
    path = tmp_path / f"people{request.param}"
    write_embeddings(path, NAMES, [ROWS[:1], ROWS[1:]], small_manifest(metric="euclidean"))
    return path


def test_every_format_gives_the_same_gallery(written: Path) -> None:
    """Rows, paths, metric and artifact come from the file, persons and cameras from the names where they tell."""
    gallery = read_gallery(written)
    assert np.array_equal(np.concatenate(gallery.parts), ROWS)
    assert gallery.paths == NAMES
    assert gallery.pids.tolist() == [1, 1, -1, UNLABELED]
    assert gallery.camids.tolist() == [0, 1, 2, UNLABELED]
    assert gallery.metric == "euclidean"
    assert gallery.manifest_sha256 == small_manifest(metric="euclidean").sha256


def test_a_damaged_file_is_refused(written: Path) -> None:
    """A file that is cut off, of other content or missing is named, whatever its format."""
    whole = written.read_bytes()
    for content in (whole[:-40], b"", b"no embeddings " * 20):
        written.write_bytes(content)
        with pytest.raises(InputError, match=rf"people\{written.suffix}: "):
            read_gallery(written)
    written.unlink()
    with pytest.raises(InputError, match=r"there is no such file"):
        read_gallery(written)


def test_other_files_are_refused(tmp_path: Path) -> None:
    """Arrays and tables of somebody else, of several artifacts, and other suffixes are refused in words."""
    np.savez(tmp_path / "a.npz", features=ROWS)
    with pytest.raises(InputError, match=r"a\.npz: not a file that reidexport embed wrote.*manifest_sha256"):
        read_gallery(tmp_path / "a.npz")
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet: not a file that reidexport embed wrote"):
        read_gallery(tmp_path / "a.parquet")
    (tmp_path / "a.csv").touch()
    with pytest.raises(
        InputError, match=r"expected embeddings, in a file that ends in \.npz or \.parquet or \.gallery"
    ):
        read_gallery(tmp_path / "a.csv")
    write_embeddings(tmp_path / "one.parquet", NAMES, [ROWS], small_manifest())
    table = pq.read_table(tmp_path / "one.parquet")
    hashes = pa.array(["ab", "ab", "cd", "cd"]).dictionary_encode()
    pq.write_table(table.set_column(2, "manifest_sha256", hashes), tmp_path / "two.parquet")
    with pytest.raises(
        InputError, match=r"two\.parquet: holds the embeddings of 2 artifacts, expected those of one"
    ):
        read_gallery(tmp_path / "two.parquet")


def labeled(rows: np.ndarray, pids: list[int], camids: list[int]) -> Gallery:
    """A Euclidean gallery of labeled rows without paths."""
    gallery = Gallery(2, metric="euclidean")
    gallery.add(np.asarray(rows, np.float32), pids=pids, camids=camids)
    return gallery


def test_answers_hold_what_is_near_enough() -> None:
    """Hits come nearest first, with rank, row and labels; the threshold and the filters leave out the rest."""
    gallery = labeled([[3, 0], [1, 0], [2, 0], [0, 0]], [1, 2, 1, UNLABELED], [0, 1, 2, 0])
    query = labeled([[0, 0]], [1], [0])
    (answer,) = search_gallery(gallery, query, 10, threshold=4.0)
    assert answer.query == SeenImage("", 1, 0)
    assert [(h.rank, h.row, h.distance, h.pid) for h in answer.hits] == [
        (1, 3, 0, None),
        (2, 1, 1, 2),
        (3, 2, 4, 1),
    ]
    (answer,) = search_gallery(gallery, query, 10, filter=SearchFilter(other_cameras=True))
    assert [hit.row for hit in answer.hits] == [1, 2]
    (answer,) = search_gallery(gallery, query, 10, filter=SearchFilter(among_camids=[0]))
    assert [hit.row for hit in answer.hits] == [3, 0]
    assert search_gallery(gallery, Gallery(2, metric="euclidean")) == []


def test_every_hit_has_its_own_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is left out takes its distance with it, wherever it is among what was found."""
    gallery = labeled([[1, 0], [2, 0], [3, 0]], [1, 2, 3], [0, 1, 2])
    found = Neighbors(np.array([[0, -1, 2]]), np.array([[1, 5, 9]], np.float32))
    monkeypatch.setattr(gallery, "search", lambda *_, **__: found)
    (answer,) = search_gallery(gallery, labeled([[0, 0]], [1], [0]))
    assert [(hit.row, hit.distance) for hit in answer.hits] == [(0, 1), (2, 9)]


def test_a_page_without_a_gallery_leaves_no_session_open(
    run: Run, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the gallery cannot be opened, the artifact is closed again, or was not opened at all."""
    changes = []

    def open_(*arguments: Any, **options: Any) -> Session:
        changes.append("opened")
        return open_session(*arguments, **options)

    close = Session.close
    monkeypatch.setattr("reidexport.cli.shared_options.open_session", open_)
    monkeypatch.setattr(Session, "close", lambda self: (changes.append("closed"), close(self)))
    done = run("web", tmp_path / "none.gallery", "--artifact", exported.onnx)
    assert (done.returncode, "there is no such file" in done.stderr) == (2, True)
    assert changes.count("opened") == changes.count("closed")


def test_a_sheet_needs_paths() -> None:
    """Rows that were added without paths cannot be drawn."""
    rows = labeled([[1, 0]], [1], [0])
    with pytest.raises(InputError, match="an image of the gallery has no path"):
        answers_sheet(search_gallery(rows, rows), num_ranks=1)


def test_frames_tell_right_wrong_and_unknown(tmp_path: Path) -> None:
    """Green for the query's person, red for another, gray where a person is not known."""
    paths = []
    for name in ("q", "right", "wrong", "unknown"):
        paths.append(str(tmp_path / f"{name}.png"))
        Image.new("RGB", (8, 16), "white").save(paths[-1])
    gallery = Gallery(2, metric="euclidean")
    gallery.add(
        np.array([[1, 0], [2, 0], [3, 0]], np.float32),
        pids=[1, 2, UNLABELED],
        camids=[0] * 3,
        paths=paths[1:],
    )
    query = Gallery(2, metric="euclidean")
    query.add(np.zeros((1, 2), np.float32), pids=[1], camids=[0], paths=paths[:1])
    sheet = answers_sheet(search_gallery(gallery, query), num_ranks=4, height_px=64)
    line = [sheet.getpixel((x, 20 + 19 + 1)) for x in range(sheet.width)]
    frames = [pixel for i, pixel in enumerate(line) if pixel != (255, 255, 255) and pixel != line[i - 1]]
    assert frames == [(107, 114, 128), (26, 152, 80), (215, 48, 39), (107, 114, 128)]


def test_images_are_searched_in_a_gallery(
    run: Run, exported: Exported, drawn_dataset: Dataset, tmp_path: Path
) -> None:
    """Embed makes the gallery; search prints, draws and writes what the gallery itself answers."""
    folder = drawn_dataset.gallery[0].path.parent
    queries = [record.path for record in drawn_dataset.query[:2]]
    people, sheet, result = tmp_path / "people.gallery", tmp_path / "sheet.png", tmp_path / "found.json"
    done = run("embed", exported.onnx, folder, "-o", people)
    assert done.returncode == 0, done.stderr
    arguments = ["-k", 3, "--other-cameras", "--sheet", sheet, "--json", result, "--artifact", exported.onnx]
    done = run("search", people, *queries, *arguments)
    assert done.returncode == 0, done.stderr
    with open_session(exported.onnx) as session:
        features = session.embed(queries)
    camids = [record.camid for record in drawn_dataset.query[:2]]
    expected = load_gallery(people).search(
        features, 3, camids=camids, filter=SearchFilter(other_cameras=True)
    )
    content = json.loads(result.read_text())
    assert [
        [hit["row"] for hit in query["hits"]] for query in content["queries"]
    ] == expected.indices.tolist()
    assert [query["pid"] for query in content["queries"]] == [
        record.pid for record in drawn_dataset.query[:2]
    ]
    assert all(hit["camid"] != query["camid"] for query in content["queries"] for hit in query["hits"])
    lines = done.stdout.splitlines()
    assert len(lines) == 1 + 2 * (1 + 3)
    first = content["queries"][0]["hits"][0]
    assert lines[2].split() == [
        "1",
        f"{first['distance']:.4f}",
        str(first["pid"]),
        str(first["camid"] + 1),
        str(first["time"]),
        first["path"],
    ]
    with Image.open(sheet) as image:
        assert image.format == "PNG"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".people.gallery.lock",
        "found.json",
        "people.gallery",
        "sheet.png",
    ]


def test_embeddings_are_searched_without_an_artifact(
    run: Run, exported: Exported, drawn_dataset: Dataset, tmp_path: Path
) -> None:
    """Embedded queries need no network; a threshold and cameras leave out the rest."""
    gallery, queries = tmp_path / "gallery.parquet", tmp_path / "queries.npz"
    run("embed", exported.onnx, drawn_dataset.gallery[0].path.parent, "-o", gallery)
    run("embed", exported.onnx, drawn_dataset.query[0].path, "-o", queries)
    done = run("search", gallery, queries, "--camids", "1,3", "-k", 100, "--json", tmp_path / "all.json")
    assert done.returncode == 0, done.stderr
    (query,) = json.loads((tmp_path / "all.json").read_text())["queries"]
    distances = [hit["distance"] for hit in query["hits"]]
    assert {hit["camid"] for hit in query["hits"]} == {0, 2}
    assert distances == sorted(distances)
    done = run("search", gallery, queries, "--camids", "1,3", "-k", 100, "--threshold", distances[2])
    assert len(done.stdout.splitlines()) == 1 + 1 + 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{gallery}", "{image}"], "Query images must be embedded: pass --artifact MODEL, or one file"),
        (["{gallery}", "{image}", "--artifact", "{fp16}"], "queries were made by another artifact"),
        (
            ["{gallery}", "{gallery}", "--camids", "0"],
            "--camids '0': expected cameras from 1, for example 1,2",
        ),
        (["{gallery}", "{gallery}", "--camids", "1;2"], "--camids '1;2': expected cameras from 1"),
        (["{gallery}", "{gallery}", "--sheet", "a.jpg"], "--sheet a.jpg: expected a name that ends in .png"),
        (["{gallery}", "missing.npz"], "missing.npz: there is no such file"),
        (["missing.gallery", "{gallery}"], "missing.gallery: there is no such file"),
        (["{unlabeled}", "{gallery}", "--other-cameras"], "other_cameras needs the camid of every row"),
    ],
)
def test_bad_input_is_refused_in_words(
    run: Run, exported: Exported, drawn_dataset: Dataset, tmp_path: Path, arguments: list[str], words: str
) -> None:
    """Missing files, unembedded images, another artifact's gallery and malformed options end with status 2."""
    gallery, unlabeled = tmp_path / "a.gallery", tmp_path / "b.gallery"
    run("embed", exported.onnx, drawn_dataset.query[0].path, "-o", gallery)
    image = tmp_path / "street.png"
    Image.new("RGB", (8, 16)).save(image)
    run("embed", exported.onnx, image, "-o", unlabeled)
    filled = [
        a.format(gallery=gallery, unlabeled=unlabeled, image=image, fp16=exported.fp16) for a in arguments
    ]
    done = run("search", *filled)
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr
    assert done.stdout == ""


def test_a_gallery_in_milvus_is_run_steps_and_searched(written: Path, tmp_path: Path, run: Run) -> None:
    """Imported twice, every embedding is stored once, and the answers are those of the file."""
    stored = f"milvus:{tmp_path / 'people.db'}"
    for _ in range(2):
        done = run("store", written, stored)
        assert (done.returncode, done.stdout) == (0, f"{stored}: 4 embeddings added, now 4\n")
    by_milvus = run("search", stored, written, "--camids", "1,2,3", "-k", 4)
    assert by_milvus.returncode == 2
    assert "among_camids needs the camid of every row, which 1 of 4 do not have" in by_milvus.stderr
    assert run("search", stored, written, "-k", 4).stdout == run("search", written, written, "-k", 4).stdout


def test_a_gallery_that_is_not_in_milvus_is_named(written: Path, tmp_path: Path, run: Run) -> None:
    """No file, no server and no address of Milvus are errors of one line."""
    done = run("search", f"milvus:{tmp_path / 'nobody.db'}", written)
    assert (done.returncode, done.stderr) == (
        2,
        f"reidexport: {tmp_path / 'nobody.db'}: there is no such file.\n",
    )
    done = run("store", written, "http://127.0.0.1:1")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "reidexport: http://127.0.0.1:1: cannot be opened" in done.stderr
    done = run("store", written, "people.csv")
    assert done.returncode == 2
    assert (
        "people.csv: expected *.gallery, *.parquet, *.npz, milvus:FILE.db, or http(s)://HOST:PORT"
        in done.stderr
    )


def test_a_folder_of_parquet_files_is_a_gallery_and_a_set_of_queries(tmp_path: Path, run: Run) -> None:
    """What embed --ray writes is searched, and searched for, as one file of the same rows is."""
    folder = tmp_path / "parts"
    folder.mkdir()
    write_embeddings(folder / "part-0.parquet", NAMES[:2], [ROWS[:2]], small_manifest())
    write_embeddings(folder / "part-1.parquet", NAMES[2:], [ROWS[2:]], small_manifest())
    whole = tmp_path / "whole.parquet"
    write_embeddings(whole, NAMES, [ROWS], small_manifest())
    done, expected = run("search", folder, folder), run("search", whole, whole)
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected.stdout
    (tmp_path / "empty").mkdir()
    done = run("search", whole, tmp_path / "empty")
    assert done.returncode == 2
    assert "no .parquet file in this folder holds embeddings" in done.stderr


def test_a_query_that_is_not_an_embedding_is_named(tmp_path: Path, run: Run) -> None:
    """An image to which the network answers NaN finds nobody; its path is in the message."""
    artifact = write_overflowing(tmp_path / "over.onnx")
    for name, value in (("a.png", 50), ("white.png", 255)):
        Image.new("RGB", (20, 30), (value,) * 3).save(tmp_path / name)
    people = tmp_path / "people.gallery"
    assert run("embed", artifact, tmp_path / "a.png", "-o", people).returncode == 0
    done = run("search", people, tmp_path / "a.png", tmp_path / "white.png", "--artifact", artifact)
    assert (done.returncode, "white.png: the network answers with NaN or infinity" in done.stderr) == (
        2,
        True,
    )
    (tmp_path / "l.csv").write_text("path,person\na.png,5\n")
    words = ["search", people, tmp_path / "a.png", "--artifact", artifact, "--labels", tmp_path / "l.csv"]
    done = run(*words, "--threshold", "-1")
    assert (done.returncode, done.stdout.splitlines()[1].split()[0]) == (0, "5")
    assert "people.gallery: 1 of 1 queries found nothing: no row is at distance -1 or less." in done.stderr
