"""``embed`` onto a gallery that exists: refused, replaced, or added to, and never lost."""

import json
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from reidgallery import Gallery, load_gallery
from reidgallery.input import Forgotten, LabeledRows
from reidruntime import SessionOptions, open_session

from reidexport.embed.adding import AddingRules
from reidexport.embed.files import gallery_from_manifest, labeled_parts
from reidexport.embed.plan import Plan
from reidexport.embed.run import embed_images, run_folder
from reidexport.embed.shards import Done, EmbeddingRunOptions, embed_shards
from reidexport.embed.target import TargetOptions, save_gallery
from reidexport.errors import InputError
from tests.conftest import Run
from tests.standins.image_sources import jpeg, write_tar
from tests.standins.runtime_models import DIM, small_manifest, write_artifact


@pytest.fixture
def days(tmp_path: Path) -> Path:
    """Two folders of images named by person, of which two are in both."""
    for day, names in (("monday", "123"), ("tuesday", "4")):
        (tmp_path / day).mkdir()
        for name in names:
            (tmp_path / day / f"000{name}_c1s1_00000{name}_00.jpg").write_bytes(jpeg(int(name)))
    return tmp_path


@pytest.fixture
def people(days: Path, artifact: Path, run: Run) -> Path:
    """A gallery of the first day."""
    path = days / "people.gallery"
    assert run("embed", artifact, days / "monday", "-o", path).returncode == 0
    return path


def test_a_gallery_is_not_replaced_without_a_word(people: Path, days: Path, artifact: Path, run: Run) -> None:
    """It is refused before any work, in words that name the options; --replace writes it anew."""
    before = people.read_bytes()
    for force in ([], ["--force"] if "--force" in run("embed", "--help").stdout else []):
        done = run("embed", artifact, days / "tuesday", "-o", people, *force)
        assert (done.returncode, people.read_bytes()) == (2, before)
        assert "people.gallery: the gallery exists. Pass --append to add to it, or --replace" in done.stderr
    assert run("embed", artifact, days / "tuesday", "-o", people, "--replace").returncode == 0
    assert load_gallery(people).pids.tolist() == [4]


@pytest.mark.parametrize("existing", ["refuse", "replace", "append"])
def test_a_gallery_written_in_the_meantime_is_not_lost(
    existing: Literal["refuse", "replace", "append"], tmp_path: Path
) -> None:
    """Who writes the file while the rows are read keeps it; the run says so."""
    path, manifest = tmp_path / "people.gallery", small_manifest()
    if existing != "refuse":
        gallery_from_manifest(manifest).save(path)

    def rows() -> Iterator[LabeledRows]:
        theirs = gallery_from_manifest(manifest)
        theirs.add(np.ones((3, DIM), np.float32))
        theirs.save(path)
        yield from labeled_parts(["a.jpg"], [np.ones((1, DIM), np.float32)])

    with pytest.raises(InputError, match=r"another program has written the gallery since it was looked at"):
        save_gallery(path, rows(), manifest, TargetOptions(existing=existing))
    assert len(load_gallery(path)) == 3


@pytest.mark.parametrize(
    ("target", "is_lost"),
    [
        (TargetOptions(), True),
        (TargetOptions(existing="replace"), True),
        (TargetOptions(existing="append"), False),
        (TargetOptions(existing="append", rules=AddingRules(on_duplicate="skip")), True),
    ],
    ids=["new", "replace", "append", "skip"],
)
def test_a_gallery_written_while_images_are_embedded_is_not_lost(
    target: TargetOptions, is_lost: bool, people: Path, days: Path, artifact: Path
) -> None:
    """What others write in hours of embedding stays: added to, or the run says so and keeps what it did."""
    theirs = load_gallery(people)
    theirs.add(np.ones((1, DIM), np.float32), paths=["theirs.jpg"])
    if target.existing == "refuse":
        people.unlink()
    sources = [days / "monday", days / "tuesday"] if target.rules != AddingRules() else [days / "tuesday"]
    with open_session(artifact, SessionOptions(threads=1)) as session:

        def execute(plan: Plan, numbers: Sequence[int], options: EmbeddingRunOptions) -> Iterator[Done]:
            theirs.save(people)
            return embed_shards(session, plan, numbers, options)

        call = partial(
            embed_images, execute, list(map(str, sources)), people, session.manifest, EmbeddingRunOptions()
        )
        if is_lost:
            with pytest.raises(InputError, match=r"What was embedded is kept for --resume\.") as error:
                call(target=target)
            words = "the gallery exists" if target.existing == "refuse" else "another program has written"
            assert words in str(error.value)
            assert run_folder(people).is_dir()
        else:
            call(target=target)
    assert "theirs.jpg" in load_gallery(people).paths
    assert len(load_gallery(people)) == (4 if is_lost else 5)


def test_images_are_appended(people: Path, days: Path, artifact: Path, run: Run) -> None:
    """The rows that were there stay, bit for bit; the new ones follow; what does not exist is made."""
    (old,) = load_gallery(people).parts
    record = days / "j.json"
    done = run("embed", artifact, days / "tuesday", "-o", people, "--append", "--json", record)
    assert (done.returncode, f"{people}: 1 added; now 4 embeddings\n" in done.stdout) == (0, True)
    grown = load_gallery(people)
    assert (grown.pids.tolist(), json.loads(record.read_text())["change"]["num_rows"]) == ([1, 2, 3, 4], 4)
    assert np.concatenate(grown.parts)[:3].tobytes() == old.tobytes()
    done = run("embed", artifact, days / "tuesday", "-o", days / "new.gallery", "--append")
    assert (done.returncode, len(load_gallery(days / "new.gallery"))) == (0, 1)


def test_paths_that_are_there_follow_the_rule(people: Path, days: Path, artifact: Path, run: Run) -> None:
    """An error by default, before any work; kept with skip, which embeds only the others; or replaced."""
    second = days / "monday" / "0002_c1s1_000002_00.jpg"
    second.write_bytes(jpeg(99))
    both = [days / "monday", days / "tuesday"]
    before = people.read_bytes()
    done = run("embed", artifact, *both, "-o", people, "--append")
    assert (done.returncode, people.read_bytes()) == (2, before)
    assert "people.gallery: 3 of the paths are in the gallery already, the first" in done.stderr
    assert "--on-duplicate skip" in done.stderr
    assert not (days / "people.gallery.partial").exists()
    kept = load_gallery(people).embeddings(np.arange(3))
    done = run("embed", artifact, *both, "-o", people, "--append", "--on-duplicate", "skip")
    assert f"{people}: 1 embeddings, 0 skipped" in done.stdout
    assert "1 added, 3 left out as the gallery has their paths; now 4 embeddings" in done.stdout
    assert load_gallery(people).embeddings(np.arange(3)).tobytes() == kept.tobytes()
    done = run("embed", artifact, *both, "-o", people, "--append", "--on-duplicate", "skip")
    assert (done.returncode, "0 added, 4 left out" in done.stdout) == (0, True)
    done = run("embed", artifact, second, "-o", people, "--append", "--on-duplicate", "replace")
    assert "1 added, 1 replaced; now 4 embeddings" in done.stdout
    replaced = load_gallery(people)
    assert replaced.pids.tolist() == [1, 3, 4, 2]
    assert not np.allclose(replaced.embeddings(np.array([3])), kept[1])


def test_what_is_in_a_tar_is_compared_when_it_is_added(
    people: Path, days: Path, artifact: Path, run: Run
) -> None:
    """Its names are not known before; the gallery stays, and the run continues with another rule."""
    tar = write_tar(days / "x.tar", {"0005_c1.jpg": jpeg(5)})
    assert run("embed", artifact, tar, "-o", people, "--append").returncode == 0
    before = people.read_bytes()
    done = run("embed", artifact, tar, "-o", people, "--append")
    assert (done.returncode, "1 of the paths are in the gallery already" in done.stderr) == (2, True)
    assert people.read_bytes() == before
    done = run("embed", artifact, tar, "-o", people, "--append", "--resume", "--on-duplicate", "skip")
    assert (done.returncode, "0 added, 1 left out" in done.stdout) == (0, True)


def test_an_append_that_stops_leaves_the_gallery(people: Path, days: Path, artifact: Path, run: Run) -> None:
    """A bad image stops the run, the old gallery is whole, and the same command with --resume completes it."""
    bad = days / "tuesday" / "0009_c1s1_000009_00.jpg"
    bad.write_bytes(b"")
    before = people.read_bytes()
    words = ["embed", artifact, days / "tuesday", "-o", people, "--append", "--batch", 1, "--shard-size", 1]
    assert run(*words).returncode == 2
    assert people.read_bytes() == before
    bad.write_bytes(jpeg(9))
    assert run(*words, "--resume").returncode == 0
    assert load_gallery(people).pids.tolist() == [1, 2, 3, 4, 9]


def test_who_was_forgotten_stays_forgotten(people: Path, days: Path, artifact: Path, run: Run) -> None:
    """By person and by path, after --append and after --replace; --include-forgotten brings them back."""
    shutil.copy(days / "monday" / "0003_c1s1_000003_00.jpg", days / "tuesday" / "street.jpg")
    assert run("embed", artifact, days / "tuesday" / "street.jpg", "-o", people, "--append").returncode == 0
    assert run("forget", people, "--pids", "2", "--paths", "*/street.jpg").returncode == 0
    everything = ["embed", artifact, days / "monday", days / "tuesday", "-o", people]
    done = run(*everything, "--append", "--on-duplicate", "skip")
    assert "1 added, 2 left out as the gallery has their paths, 2 left out as forgotten" in done.stdout
    done = run(*everything, "--replace")
    assert "3 added, 2 left out as forgotten (--include-forgotten adds them); now 3" in done.stdout
    done = run(*everything, "--append", "--on-duplicate", "skip", "--include-forgotten")
    assert (done.returncode, "2 added" in done.stdout) == (0, True)
    back = load_gallery(people)
    assert (len(back), back.forgotten) == (5, Forgotten())


def test_a_table_may_be_about_images_that_are_there(
    people: Path, days: Path, artifact: Path, run: Run
) -> None:
    """With --on-duplicate skip it need not name a new image, and there need not be one."""
    labels = days / "labels.csv"
    labels.write_text("path,person\nmonday/0001_c1s1_000001_00.jpg,1\n")
    for num_new in (1, 0):
        done = run(
            *("embed", artifact, days / "monday", days / "tuesday", "-o", people, "--append"),
            *("--on-duplicate", "skip", "--labels", labels),
        )
        assert (done.returncode, f"{num_new} added" in done.stdout) == (0, True), done.stderr
        assert "labels.csv: 3 of 4 images have no row there" in done.stderr


def test_a_forgotten_person_stays_so_without_labels(
    people: Path, days: Path, artifact: Path, run: Run
) -> None:
    """Whom only a table of labels named is left out of an import without it; with it, all images may be back."""
    street, labels = days / "tuesday" / "street.jpg", days / "labels.csv"
    street.write_bytes(jpeg(8))
    labels.write_text("path,person\ntuesday/street.jpg,77\n")
    append = ["embed", artifact, street, "-o", people, "--append"]
    assert run(*append, "--labels", labels).returncode == 0
    assert run("forget", people, "--pids", "77").returncode == 0
    done = run(*append)
    assert (done.returncode, "0 added, 1 left out as forgotten" in done.stdout) == (0, True), done.stdout
    done = run(*append, "--labels", labels, "--include-forgotten")
    assert (done.returncode, "1 added" in done.stdout) == (0, True)
    assert load_gallery(people).forgotten == Forgotten()


def test_replacing_a_gallery_keeps_whom_it_has_forgotten(
    people: Path, days: Path, artifact: Path, run: Run
) -> None:
    """With --include-forgotten only those leave the list who are found again."""
    assert run("forget", people, "--pids", "2,3").returncode == 0
    second = days / "monday" / "0002_c1s1_000002_00.jpg"
    done = run("embed", artifact, second, "-o", people, "--replace", "--include-forgotten")
    assert (done.returncode, len(load_gallery(people))) == (0, 1)
    assert load_gallery(people).forgotten.pids == {3}


def test_options_that_do_not_fit_are_refused(people: Path, days: Path, artifact: Path, run: Run) -> None:
    """Other files, both ways at once, a rule without --append, another artifact and a damaged gallery."""
    euclidean = write_artifact(days / "e.onnx", manifest=small_manifest(metric="euclidean"))
    for model, output, options, words in (
        (artifact, days / "o.npz", ["--append"], "o.npz: --append are for .gallery files"),
        (artifact, people, ["--append", "--replace"], "Pass one of them"),
        (artifact, people, ["--on-duplicate", "skip"], "Pass --append, too"),
        (euclidean, people, ["--append"], "what is to be added were made by another artifact"),
    ):
        done = run("embed", model, days / "tuesday", "-o", output, *options)
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    Gallery(DIM).save(days / "unknown.gallery")
    done = run("embed", artifact, days / "tuesday", "-o", days / "unknown.gallery", "--append")
    assert (done.returncode, "does not say which artifact made it" in done.stderr) == (2, True)
    people.write_bytes(people.read_bytes()[:-1])
    done = run("embed", artifact, days / "tuesday", "-o", people, "--replace")
    assert (done.returncode, "whom it has forgotten cannot be read" in done.stderr) == (2, True)


def test_a_table_of_labels_tells_what_names_do_not(days: Path, artifact: Path, run: Run) -> None:
    """Every kind of file has its persons, cameras and times, and the command says what the table leaves open."""
    (days / "tuesday" / "street.jpg").write_bytes(jpeg(8))
    (days / "labels.csv").write_text(
        "path,person,camera,time\ntuesday/street.jpg,7,3,2026-11-25\nz.jpg,1,,\n"
    )
    for name in ("o.gallery", "o.npz", "o.parquet"):
        output = days / name
        done = run("embed", artifact, days / "tuesday", "-o", output, "--labels", days / "labels.csv")
        assert done.returncode == 0, done.stderr
        assert "labels.csv: 1 of 2 images have no row there, the first" in done.stderr
        assert "labels.csv: 1 rows are about none of the images, the first z.jpg" in done.stderr
        found = run("search", output, output, "-k", 1, "--camids", "3").stdout.splitlines()
        assert found[-1].split()[2:5] == ["7", "3", "2026-11-25T00:00:00.000Z"]
    done = run("embed", artifact, days / "tuesday", "-o", days / "parts", "--labels", days / "labels.csv")
    assert (done.returncode, "Pass --labels to reidexport store" in done.stderr) == (2, True)
    done = run("embed", artifact, days / "monday", "-o", days / "m.npz", "--labels", days / "labels.csv")
    assert (done.returncode, "no row is about one of the 3 images" in done.stderr) == (2, True)
    assert not (days / "m.npz.partial").exists()
