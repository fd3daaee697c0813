"""Records: written, read again, and refused in words."""

import json
import math
from pathlib import Path

import pytest

from reidexport.errors import InputError
from reidexport.records.checks import GpuCheck, GpuCheckRecord
from reidexport.records.embeddings import EmbeddingRun
from reidexport.records.reading import read_record, write_record
from tests.standins.report_results import COMMITTED, GALLERY, GPU_CHECK, PARITY


@pytest.mark.parametrize("path", sorted(COMMITTED.rglob("*.json")), ids=lambda path: path.stem)
def test_committed_results_are_written_as_they_are_read(path: Path, tmp_path: Path) -> None:
    """Every file in benchmarks/results is what this version writes, to the byte."""
    write_record(tmp_path / "again.json", read_record(path))
    assert (tmp_path / "again.json").read_text() == path.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"odd\.json: is not JSON .*Expected what --json of a command"),
        ("[]", r"odd\.json: holds a list, not an object"),
        ('{"a": 1}', r'odd\.json: has no "kind"\. Expected what --json .* Write it again'),
        ('{"kind": "recipe"}', r"odd\.json: unknown kind 'recipe'\. Expected one of 'parity', 'verify'"),
        ('{"kind": "demo", "version": 7}', r"odd\.json: version 7 of 'demo' is not known\. Write it again"),
        ('{"kind": "benchmark", "question": "x"}', "not a whole benchmark record: machine: field required"),
        (
            json.dumps({**PARITY, "metric": 3}),
            "not a whole parity record: metric: input should be 'cosine' or",
        ),
        (
            json.dumps({**GALLERY, "rowz": 3}),
            r"rowz is not known of a benchmark record\. Read it with the version of reidexport that wrote it",
        ),
    ],
)
def test_what_is_no_record_is_named(tmp_path: Path, text: str, message: str) -> None:
    """With the field that is wrong, what was expected, and what to do."""
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_record(tmp_path / "odd.json")
    with pytest.raises(InputError, match=r"none\.json: cannot be read \(No such file"):
        read_record(tmp_path / "none.json")


def test_what_json_has_no_word_for_is_null(tmp_path: Path) -> None:
    """NaN and infinity; a file that is replaced is whole before it is, and without a path none is written."""
    record = GpuCheckRecord.model_validate(GPU_CHECK)
    write_record(tmp_path / "a.json", record)
    found = {"errors": [math.nan, math.inf, 1.0]}
    checks = (GpuCheck(group="torch", check="parity", outcome="passed", measured=found),)
    write_record(tmp_path / "a.json", record.model_copy(update={"checks": checks}))
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["checks"][0]["measured"]["errors"] == [None, None, 1.0]
    write_record(None, record)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_names_of_files_need_not_be_utf8(tmp_path: Path) -> None:
    """A name as Python reads it from a disk is written, and read again as it was."""
    run = EmbeddingRun(
        output=Path("o.npz"),
        num_shards=1,
        num_embedded=0,
        num_new=0,
        num_resumed=0,
        skipped=(("\udcff.jpg", "no image"),),
        sessions=(),
        seconds=1.0,
        total_seconds=1.0,
    )
    write_record(tmp_path / "a.json", run)
    assert read_record(tmp_path / "a.json") == run
