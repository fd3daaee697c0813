"""The demo at a small size: every step runs, and its folder is whole or missing."""

import json
from pathlib import Path

import pytest

from reidexport.checkpoint.loading import load_checkpoint
from reidexport.cli.demo import demo
from reidexport.cli.output import text_table
from reidexport.data import load_dataset
from reidexport.demo import DemoSettings, run_demo, steps
from reidexport.demo.run import MARKER, replaced_folder
from reidexport.demo.summary import FILES, accuracy_table, markdown, parity_table
from reidexport.errors import InputError, NotInstalledError
from reidexport.records.demo import DemoSummary

SMALL = DemoSettings(
    changes=(
        *("synthetic.num_train_pids=4", "synthetic.num_test_pids=3", "schedule.num_epochs=1"),
        *("batch.num_pids=2", "batch.num_instances=2"),
    ),
    batch_sizes=(1, 3),
    seconds_per_batch=0.02,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoSummary, list[str]]:
    """One small run: its folder, what it returned, and what it said."""
    out = tmp_path_factory.mktemp("demo") / "out"
    said: list[str] = []
    return out, run_demo(out, settings=SMALL, log=said.append), said


def test_the_folder_holds_what_is_promised(made: tuple[Path, DemoSummary, list[str]]) -> None:
    """All files and nothing else, in it or beside it."""
    out, _, said = made
    assert {entry.name for entry in out.iterdir()} == {MARKER, *FILES}
    assert [entry.name for entry in out.parent.iterdir()] == ["out"]
    assert len(said) == 3
    assert load_checkpoint(out / "checkpoint.pth").architecture.backbone == "resnet18"
    assert len(load_dataset(out / "data").query) == 12


def test_the_summary_says_what_was_measured(made: tuple[Path, DemoSummary, list[str]]) -> None:
    """Data, training, the baseline, and for each file parity, accuracy and speed."""
    out, summary, _ = made
    written = json.loads((out / "summary.json").read_text())
    assert written == summary.model_dump(mode="json")
    assert written["dataset"] == {
        "num_train": 64,
        "num_train_pids": 4,
        "num_query": 12,
        "num_query_pids": 3,
        "num_gallery": 48,
    }
    assert written["training"]["num_epochs"] == 1
    assert 0 < written["raw_pixels"]["rank1"] <= 1
    fp32, fp16 = written["artifacts"]
    assert (fp32["artifact"], fp16["artifact"]) == ("model-fp32.onnx", "model-fp16.onnx")
    assert fp32["verify"]["passed"]
    assert fp32["verify"]["drops"]["rank1"] == 0
    assert fp16["verify"]["min_cosine"] > 0.999
    assert fp16["size_mib"] < 0.6 * fp32["size_mib"]
    for artifact in written["artifacts"]:
        assert artifact["eval"]["rank1"] == artifact["verify"]["candidate_ranks"]["rank1"]
        assert [timing["batch_size"] for timing in artifact["bench"]["batches"]] == [1, 3]
    assert str(out.parent) not in (out / "summary.json").read_text()


def test_the_pages_hold_every_table(made: tuple[Path, DemoSummary, list[str]]) -> None:
    """Markdown beside the contact sheet; the report, with images inside, of the files in ``results``."""
    out, summary, _ = made
    text = (out / "summary.md").read_text()
    for row in (row for table in (accuracy_table, parity_table) for row in table(summary)):
        assert f"| {' | '.join(row)} |" in text
    assert text == markdown(summary)
    page = (out / "report.html").read_text()
    for artifact in summary.artifacts:
        assert artifact.artifact in page
        assert f"{100 * artifact.eval.mAP:.2f}" in page
    assert "data:image/jpeg;base64," in page
    names = {f"{command}-{each}.json" for command in ("eval", "verify", "bench") for each in ("fp32", "fp16")}
    assert {path.name for path in (out / "results").iterdir()} == names
    assert not any(str(out.parent) in path.read_text() for path in (out / "results").iterdir())


def test_text_columns_are_aligned() -> None:
    """Names to the left, figures to the right."""
    assert text_table([["", "a"], ["name", "10.0"]]) == "         a\nname  10.0"


def test_an_interrupted_run_leaves_the_earlier_one(tmp_path: Path) -> None:
    """Ctrl-C after the training: the old folder is as it was, and nothing is left beside it."""
    out = tmp_path / "out"
    with replaced_folder(out, FILES) as folder:
        (folder / "summary.md").write_text("earlier")

    def interrupt(line: str) -> None:
        if line.startswith("exporting"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_demo(out, settings=SMALL, log=interrupt)
    assert (out / "summary.md").read_text() == "earlier"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_an_earlier_result_is_replaced(tmp_path: Path) -> None:
    """And so is an empty folder."""
    out = tmp_path / "out"
    out.mkdir()
    for text in ("first", "second"):
        with replaced_folder(out, FILES) as folder:
            (folder / "summary.md").write_text(text)
        assert (out / "summary.md").read_text() == text
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_somebody_elses_files_are_not_touched(tmp_path: Path) -> None:
    """Not in a folder that the demo did not make, not in one that it did, and not in the place of a file."""
    (tmp_path / "summary.md").write_text("mine")
    with pytest.raises(InputError, match=r"holds summary\.md, which the demo did not make"):
        demo(tmp_path)
    (tmp_path / MARKER).touch()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds notes\.txt"):
        demo(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        demo(tmp_path / "notes.txt")


def test_without_the_trainer_the_demo_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed package has none: the message sends to a checkout, and nothing is left behind."""
    monkeypatch.setattr(steps, "CHECKOUT", tmp_path)
    with pytest.raises(NotInstalledError, match="run it in a checkout of reidexport"):
        run_demo(tmp_path / "out", settings=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_trainer_that_fails_fails_the_demo(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With its exit status in the message, and its own words on stderr."""
    with pytest.raises(InputError, match="the trainer stopped with exit status 2"):
        run_demo(tmp_path / "out", settings=DemoSettings(changes=("tricks.bneck=true",)))
    assert "did you mean tricks.bnneck?" in capfd.readouterr().err
