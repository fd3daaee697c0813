"""Bulk embedding: whole files, no lost work, bad images reported by name."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image
from reidruntime import Session, SessionOptions, open_session
from typer.testing import CliRunner

from reidexport.cli.embed import embed
from reidexport.data.image_paths import find_images
from reidexport.embed.plan import PLAN_NAME
from reidexport.embed.run import embed_images
from reidexport.embed.shards import EmbeddingRunOptions, embed_shards
from reidexport.errors import ImageError, InputError
from reidexport.records.embeddings import EmbeddingRun
from tests.standins.embedding_runs import start_run, wait_for_parts
from tests.standins.image_sources import jpeg, rows_of, write_images, write_tar
from tests.standins.runtime_models import (
    DIM,
    small_manifest,
    write_artifact,
    write_foreign,
    write_overflowing,
)

CLI = typer.Typer()
CLI.command()(embed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images in two folders, and a file that is no image."""
    rng = np.random.default_rng(0)
    for index in range(10):
        path = tmp_path / "crops" / ("a" if index < 5 else "b") / f"{index}.{'png' if index % 2 else 'JPG'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 20, 3), dtype=np.uint8)).save(path)
    (tmp_path / "crops" / "Thumbs.db").write_bytes(b"x")
    return tmp_path / "crops"


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A small network."""
    with open_session(write_artifact(tmp_path / "a.onnx"), SessionOptions(threads=1)) as opened:
        yield opened


def embed_to(
    session: Session,
    paths: list[str],
    output: Path,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> EmbeddingRun:
    """What :func:`embed_images` does, with these fields of its options."""
    return embed_images(
        partial(embed_shards, session),
        paths,
        output,
        session.manifest,
        EmbeddingRunOptions(**options),
        lambda *_: nullcontext(progress),
    )


def test_files_folders_and_patterns_are_found_once(folder: Path) -> None:
    """Folders deeply and sorted, patterns, single files; duplicates only once; other files left out."""
    everything = find_images([folder])
    assert [Path(path).stem for path in everything] == [str(i) for i in range(10)]
    assert find_images([folder / "b" / "7.png", folder, f"{folder}/**/*.png"])[0].endswith("7.png")
    assert len(find_images([folder / "b" / "7.png", folder])) == 10
    assert len(find_images([f"{folder}/**/*.JPG"])) == 5
    assert len(find_images([f"{folder}/?"])) == 10


def test_nothing_found_is_an_error(folder: Path) -> None:
    """A missing path and a folder without images are named."""
    with pytest.raises(InputError, match="no such file or folder"):
        find_images([folder / "c"])
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="empty: the folder holds no image"):
        find_images([folder / "empty"])


def test_npz_holds_paths_embeddings_and_manifest(folder: Path, session: Session, tmp_path: Path) -> None:
    """The file is what session.embed answers, with the manifest and its hash, and no folder stays."""
    paths = find_images([folder])
    run = embed_to(session, paths, tmp_path / "out.npz", batch_size=2, shard_size=3)
    assert (run.num_embedded, run.num_resumed, run.skipped) == (10, 0, ())
    with np.load(tmp_path / "out.npz") as file:
        assert file["paths"].tolist() == paths
        assert np.allclose(file["embeddings"], session.embed(paths), rtol=1e-5)
        assert file["embeddings"].dtype == np.float32
        assert str(file["manifest_sha256"]) == session.manifest.sha256
        assert json.loads(str(file["manifest"])) == json.loads(session.manifest.to_json())
    assert not (tmp_path / "out.npz.partial").exists()


def test_parquet_holds_the_same(folder: Path, session: Session, tmp_path: Path) -> None:
    """Columns path, embedding as a fixed-size list, and manifest_sha256."""
    paths = find_images([folder])
    embed_to(session, paths, tmp_path / "out.parquet", shard_size=4, batch_size=2)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["path", "embedding", "manifest_sha256"]
    assert table["path"].to_pylist() == paths
    assert str(table.schema.field("embedding").type) == f"fixed_size_list<element: float>[{DIM}]"
    assert np.allclose(np.stack(table["embedding"].to_pylist()), session.embed(paths), rtol=1e-5)
    assert set(table["manifest_sha256"].to_pylist()) == {session.manifest.sha256}
    assert table.schema.metadata[b"reidexport.manifest"].decode() == session.manifest.to_json()


def test_bad_images_are_skipped_by_name(folder: Path, session: Session, tmp_path: Path) -> None:
    """With on_error skip the others are embedded, in order, and each bad one is reported with its reason."""
    bad = [folder / "a" / "0.JPG", folder / "b" / "8.JPG", folder / "b" / "9.png"]
    for path in bad:
        path.write_bytes(b"")
    paths = find_images([folder])
    run = embed_to(session, paths, tmp_path / "o.npz", on_error="skip", batch_size=2, shard_size=2)
    assert [path for path, _ in run.skipped] == [str(path) for path in bad]
    assert all("is empty" in reason for _, reason in run.skipped)
    with np.load(tmp_path / "o.npz") as file:
        assert file["paths"].tolist() == [path for path in paths if path not in map(str, bad)]


@pytest.mark.parametrize("name", ["o.npz", "o.parquet", "o.gallery", "o"])
def test_an_answer_that_is_not_an_embedding_is_a_bad_image(name: str, folder: Path, tmp_path: Path) -> None:
    """NaN, and zeros for cosine, from the first batch on: stopped at by path, skipped and counted, or resumed after."""
    paths = find_images([folder])
    for path, value in ((paths[0], 255), (paths[5], 0)):
        Image.new("RGB", (20, 30), (value,) * 3).save(path, "PNG")
    with open_session(write_overflowing(tmp_path / "over.onnx"), SessionOptions(threads=1)) as session:
        assert np.isnan(session.embed(paths[:1])).all()
        output = tmp_path / name
        with pytest.raises(
            ImageError, match=r"a/0\.JPG: the network answers with NaN or infinity\. .*--on-error"
        ):
            embed_to(session, paths, output, batch_size=2, shard_size=2)
        with pytest.raises(
            ImageError, match=r"b/5\.png: .* zeros only, which cosine cannot compare\. .* 4 of 9 "
        ):
            embed_to(session, paths[1:], output, batch_size=2, shard_size=2)
        run = embed_to(session, paths[1:], output, on_error="skip", resume=True, batch_size=2, shard_size=2)
        assert (run.num_resumed, run.num_embedded, [path for path, _ in run.skipped]) == (4, 8, [paths[5]])
        run = embed_to(session, paths, tmp_path / f"all_{name}", on_error="skip", batch_size=2, shard_size=2)
        assert [path for path, _ in run.skipped] == [paths[0], paths[5]]
        good = [*paths[1:5], *paths[6:]]
        found, rows = rows_of(tmp_path / f"all_{name}")
        assert found == good
        assert np.allclose(np.frombuffer(rows, np.float32).reshape(8, DIM), session.embed(good), rtol=1e-5)


def test_zeros_are_a_point_for_the_euclidean_distance(folder: Path, tmp_path: Path) -> None:
    """Where cosine is not what compares, a row of zeros is kept."""
    Image.new("RGB", (20, 30)).save(folder / "a" / "1.png")
    artifact = write_artifact(tmp_path / "e.onnx", manifest=small_manifest(metric="euclidean"))
    with open_session(artifact, SessionOptions(threads=1)) as session:
        assert embed_to(session, [str(folder)], tmp_path / "o.gallery").num_embedded == 10


def test_all_images_bad_gives_an_empty_file(tmp_path: Path, session: Session) -> None:
    """Nothing to embed is still a valid file of shape (0, D)."""
    (tmp_path / "x.png").write_bytes(b"")
    embed_to(session, [str(tmp_path / "x.png")], tmp_path / "o.npz", on_error="skip")
    with np.load(tmp_path / "o.npz") as file:
        assert file["embeddings"].shape == (0, DIM)


def test_a_bad_image_stops_and_the_rest_is_resumed(folder: Path, session: Session, tmp_path: Path) -> None:
    """The default stops with the name; the old file stays; --resume takes over what was finished."""
    paths = find_images([folder])
    good = Path(paths[7]).read_bytes()
    Path(paths[7]).write_bytes(b"")
    output = tmp_path / "out.npz"
    output.write_bytes(b"old")
    with pytest.raises(ImageError, match=r"7\.png: the file is empty\..*--resume.*6 of 10 images are done"):
        embed_to(session, paths, output, batch_size=2, shard_size=2)
    assert output.read_bytes() == b"old"
    with pytest.raises(InputError, match=r"holds a run already\. Continue it with --resume"):
        embed_to(session, paths, output)
    Path(paths[7]).write_bytes(good)
    run = embed_to(session, paths, output, resume=True, batch_size=2, shard_size=2)
    assert (run.num_embedded, run.num_resumed) == (10, 6)
    with np.load(output) as file:
        assert np.allclose(file["embeddings"], session.embed(paths), rtol=1e-5)


def test_an_interruption_keeps_what_is_finished(folder: Path, session: Session, tmp_path: Path) -> None:
    """After Ctrl-C the finished batches are on the disk and the rest is all that is done again."""
    paths = find_images([folder])

    def interrupt(done: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_to(session, paths, tmp_path / "o.npz", interrupt, batch_size=2, shard_size=2)
    assert not (tmp_path / "o.npz").exists()
    again: list[int] = []
    run = embed_to(session, paths, tmp_path / "o.npz", again.append, batch_size=2, shard_size=2, resume=True)
    assert (run.num_resumed, again) == (6, [8, 10])
    with np.load(tmp_path / "o.npz") as file:
        assert file["paths"].tolist() == paths
        assert np.allclose(file["embeddings"], session.embed(paths), rtol=1e-5)


def test_a_kill_loses_nothing(artifact: Path, tmp_path: Path) -> None:
    """A killed run is continued, and every bit is that of a run that was not."""
    paths = write_images(tmp_path / "in", 300)
    killed = start_run([], artifact, tmp_path, "out.npz")
    try:
        wait_for_parts(tmp_path / "out.npz.partial", 10, killed)
    finally:
        killed.kill()
        killed.communicate()
    num_finished = len(list((tmp_path / "out.npz.partial").glob("part-*.parquet")))
    assert 10 <= num_finished < 300
    again = start_run([], artifact, tmp_path, "out.npz", "--resume")
    stdout, stderr = again.communicate(timeout=180)
    assert (again.returncode, "300 embeddings, 0 skipped" in stdout) == (0, True), stderr
    assert f"{num_finished} images were finished by the interrupted run." in stderr
    with open_session(artifact, SessionOptions(backend="onnxruntime", threads=1)) as session:
        assert rows_of(tmp_path / "out.npz") == (paths, session.embed(paths, batch_size=1).tobytes())


def test_a_folder_is_written_from_what_a_cluster_reads(session: Session, tmp_path: Path) -> None:
    """Images, tars and Parquet files, on this machine too; a file of the same images holds the same bits."""
    paths = write_images(tmp_path / "in", 5)
    tar = write_tar(tmp_path / "in" / "x.tar", {"a.jpg": jpeg(7)})
    pq.write_table(pa.table({"image": [jpeg(8)], "path": ["8.jpg"]}), tmp_path / "in" / "x.parquet")
    run = embed_to(session, [f"{tmp_path}/in"], tmp_path / "out", batch_size=2, shard_size=2)
    assert (run.num_embedded, run.num_shards) == (7, 5)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("_errors", "_plan.jsonl"),
        *(f"part-{number:08d}.parquet" for number in range(5)),
    ]
    for name in ("o.npz", "o.parquet", "o.gallery"):
        embed_to(session, [f"{tmp_path}/in"], tmp_path / name, batch_size=2, shard_size=4)
        assert rows_of(tmp_path / name) == rows_of(tmp_path / "out")
    assert rows_of(tmp_path / "out")[0] == [*paths, f"{tar}/a.jpg", "8.jpg"]


@pytest.mark.parametrize("name", ["o", "o.parquet"])
def test_what_a_run_writes_is_no_source(name: str, folder: Path, session: Session, tmp_path: Path) -> None:
    """An output among the images is not read when the run is continued, nor when it is done again."""
    paths = find_images([folder])
    good = Path(paths[7]).read_bytes()
    Path(paths[7]).write_bytes(b"")
    with pytest.raises(ImageError):
        embed_to(session, [str(folder)], folder / name, batch_size=2, shard_size=2)
    Path(paths[7]).write_bytes(good)
    embed_to(session, [str(folder)], folder / name, batch_size=2, shard_size=2, resume=True)
    assert rows_of(folder / name)[0] == paths
    run = embed_to(session, [str(folder)], folder / name, batch_size=2, shard_size=2, resume=True)
    assert run.num_embedded == 10


def test_a_resumed_run_must_be_the_same(folder: Path, session: Session, tmp_path: Path) -> None:
    """Other images, another artifact or a damaged folder are refused."""
    paths, output = find_images([folder]), tmp_path / "o.npz"
    Path(paths[9]).write_bytes(b"")
    with pytest.raises(ImageError):
        embed_to(session, paths, output, batch_size=1, shard_size=1)
    with pytest.raises(InputError, match=r"was of other images .*\(10 files, now 9\)"):
        embed_to(session, paths[:9], output, resume=True, batch_size=1, shard_size=1)
    other = write_artifact(tmp_path / "b.onnx", manifest=small_manifest(metric="euclidean"))
    with open_session(other) as changed, pytest.raises(InputError, match="used another artifact"):
        embed_to(changed, paths, output, resume=True)
    plan = tmp_path / "o.npz.partial" / PLAN_NAME
    for text in ("", "[]", '{"manifest_sha256": "0"}'):
        plan.write_text(text)
        with pytest.raises(
            InputError, match=r"used another artifact, .* or other columns\. Use those, or delete"
        ):
            embed_to(session, paths, output, resume=True)
    plan.unlink()
    with pytest.raises(InputError, match="exists and is not a folder of embeddings"):
        embed_to(session, paths, output, resume=True)


def test_a_run_goes_on_with_the_shards_that_it_had(folder: Path, session: Session, tmp_path: Path) -> None:
    """Whatever batch and shard size the second command names: an image that needs less memory must not begin anew."""
    paths, output = find_images([folder]), tmp_path / "o.npz"
    Path(paths[9]).write_bytes(b"")
    with pytest.raises(ImageError):
        embed_to(session, paths, output, batch_size=2, shard_size=2)
    run = embed_to(session, paths, output, on_error="skip", resume=True, batch_size=3, shard_size=7)
    assert (run.num_resumed, run.num_embedded, len(run.skipped)) == (8, 9, 1)


def test_a_folder_that_was_there_stays(folder: Path, session: Session, tmp_path: Path) -> None:
    """An empty folder that a run of which nothing is finished was to fill."""
    paths = find_images([folder])
    Path(paths[0]).write_bytes(b"")
    (tmp_path / "out").mkdir()
    with pytest.raises(ImageError):
        embed_to(session, paths, tmp_path / "out", batch_size=1)
    assert (tmp_path / "out").is_dir()


def test_an_image_that_was_bad_is_no_longer_listed(folder: Path, session: Session, tmp_path: Path) -> None:
    """Where a process was killed between the list of a shard's bad images and its part, and the image was repaired."""
    paths, output = find_images([folder]), tmp_path / "out"
    content = Path(paths[3]).read_bytes()
    Path(paths[3]).write_bytes(b"")
    embed_to(session, paths, output, on_error="skip", batch_size=2, shard_size=4)
    (output / "part-00000000.parquet").unlink()
    Path(paths[3]).write_bytes(content)
    run = embed_to(session, paths, output, on_error="skip", resume=True, batch_size=2, shard_size=4)
    assert (run.num_embedded, run.skipped) == (10, ())


def test_only_new_embeddings_count_as_new(folder: Path, session: Session, tmp_path: Path) -> None:
    """A resumed run counts its own embeddings apart from those taken over, whichever images were skipped."""
    paths, output = find_images([folder]), tmp_path / "o.npz"
    for index in (1, 8):
        Path(paths[index]).write_bytes(b"")

    def interrupt(done: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_to(session, paths, output, interrupt, on_error="skip", batch_size=2, shard_size=2)
    run = embed_to(session, paths, output, on_error="skip", resume=True, batch_size=2, shard_size=2)
    assert (run.num_resumed, run.num_new, run.num_embedded, len(run.skipped)) == (6, 3, 8, 2)


def test_names_that_are_not_utf8(folder: Path, session: Session, tmp_path: Path) -> None:
    """Such a name is kept by .npz, and refused before any work by Parquet."""
    image = folder / os.fsdecode(b"\xff.png")
    try:
        shutil.copy(folder / "a" / "1.png", image)
    except OSError:
        pytest.skip("this file system holds UTF-8 names only")
    embed_to(session, [str(image)], tmp_path / "o.npz")
    with np.load(tmp_path / "o.npz") as file:
        assert file["paths"].tolist() == [str(image)]
    with pytest.raises(InputError, match=r"the name is not UTF-8, which Parquet cannot hold"):
        embed_to(session, [str(image)], tmp_path / "o.parquet")
    assert not (tmp_path / "o.parquet.partial").exists()


def test_nothing_finished_leaves_nothing(folder: Path, session: Session, tmp_path: Path) -> None:
    """A run that fails at its first image leaves no folder behind."""
    paths = find_images([folder])
    Path(paths[0]).write_bytes(b"")
    with pytest.raises(ImageError):
        embed_to(session, paths, tmp_path / "o.npz", batch_size=2)
    assert not (tmp_path / "o.npz.partial").exists()


def test_unfit_outputs_are_refused_at_once(folder: Path, session: Session, tmp_path: Path) -> None:
    """An unknown suffix, a missing folder and an unknown policy are found before any work."""
    with pytest.raises(InputError, match=r"ends in \.npz or \.parquet"):
        embed_to(session, ["a.jpg"], tmp_path / "o.csv")
    with pytest.raises(InputError, match="cannot be created"):
        embed_to(session, [str(folder)], tmp_path / "none" / "o.npz")
    with pytest.raises(InputError, match="on_error must be"):
        embed_to(session, ["a.jpg"], tmp_path / "o.npz", on_error="log")


def test_command_embeds_and_reports(folder: Path, session: Session, tmp_path: Path) -> None:
    """Counts go to stdout, the session's description to stderr, one object to --json; status 0."""
    words = [
        str(tmp_path / "a.onnx"),
        str(folder),
        "-o",
        str(tmp_path / "o.npz"),
        "--json",
        str(tmp_path / "j"),
    ]
    result = CliRunner().invoke(CLI, words)
    assert result.exit_code == 0, result.output
    assert "10 embeddings, 0 skipped" in result.stdout
    assert "threads" in result.stderr
    written = json.loads((tmp_path / "j").read_text())
    assert (written["num_embedded"], written["skipped"]) == (10, [])


def test_command_exits_with_1_when_images_were_skipped(
    folder: Path, session: Session, tmp_path: Path
) -> None:
    """Skipped images are named on stderr and make the status 1; the file is written all the same."""
    (folder / "a" / "1.png").write_bytes(b"")
    words = [str(tmp_path / "a.onnx"), str(folder), "-o", str(tmp_path / "o.npz"), "--on-error", "skip"]
    result = CliRunner().invoke(CLI, words)
    assert result.exit_code == 1
    assert "9 embeddings, 1 skipped" in result.stdout
    assert "1.png: the file is empty" in result.stderr
    assert (tmp_path / "o.npz").exists()


def test_command_says_how_to_go_on_after_an_interruption(
    folder: Path, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends with status 130 and the word --resume."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "embed_batches", interrupted)
    words = [str(tmp_path / "a.onnx"), str(folder), "-o", str(tmp_path / "o.npz")]
    result = CliRunner().invoke(CLI, words)
    assert result.exit_code == 130
    assert "--resume" in result.stderr


def test_command_opens_foreign_files(folder: Path, tmp_path: Path, session: Session) -> None:
    """The facts given as options make a foreign file answer as our own."""
    words = [str(write_foreign(tmp_path / "f.onnx")), str(folder), "-o", str(tmp_path / "o.npz")]
    facts = ["--size", "32x16", "--mean", "0", "--std", "1/255,1/255,1/255"]
    result = CliRunner().invoke(CLI, [*words, *facts])
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "o.npz") as file:
        expected = session.embed(find_images([folder]))
        assert np.allclose(file["embeddings"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (["--size", "32x16"], "give --mean --std too"),
        (["--size", "32", "--mean", "0", "--std", "1"], "expected HEIGHTxWIDTH"),
        (["--size", "32x16", "--mean", "a", "--std", "1"], "Expected three numbers"),
        (["--size", "32x16", "--mean", "0,0", "--std", "1"], "expected three numbers"),
        (["--size", "32x16", "--mean", "0", "--std", "0"], "positive for --std"),
    ],
)
def test_command_refuses_unfit_facts(folder: Path, tmp_path: Path, facts: list[str], words: str) -> None:
    """Missing and malformed facts are named."""
    arguments = [str(write_foreign(tmp_path / "f.onnx")), str(folder), "-o", str(tmp_path / "o.npz"), *facts]
    with pytest.raises(InputError, match=words):
        CliRunner().invoke(CLI, arguments, catch_exceptions=False)


def test_command_refuses_facts_for_a_file_that_has_them(
    folder: Path, session: Session, tmp_path: Path
) -> None:
    """A manifest is not silently overridden."""
    arguments = [str(tmp_path / "a.onnx"), str(folder), "-o", str(tmp_path / "o.npz"), "--size", "32x16"]
    with pytest.raises(InputError, match="the file carries a manifest"):
        CliRunner().invoke(CLI, arguments, catch_exceptions=False)
