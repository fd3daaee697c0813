"""Result files: read, told apart, and refused in words."""

import copy
import json
import re
from pathlib import Path

import pytest

from reidexport.errors import InputError
from reidexport.report import read_results, write_report
from tests.conftest import Run
from tests.standins.report_results import COMMITTED, GALLERY


def test_a_ratio_of_nothing_is_refused(folder: Path) -> None:
    """It has no place on a logarithmic axis, and no measurement gives it."""
    content = copy.deepcopy(GALLERY)
    content["rows"][0]["ratios"]["faiss"]["lowest"] = 0
    (folder / "gallery.json").write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"not a whole benchmark record: .*lowest: input should be greater than 0"
    ):
        read_results([folder / "gallery.json"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"odd\.json: is not JSON .*Expected what --json of a command"),
        (
            '{"kind": "search", "gallery": "", "manifest_sha256": null, "metric": "cosine", "queries": []}',
            r"odd\.json: a record of the kind search is not shown in a report: leave it out",
        ),
    ],
)
def test_what_is_no_result_is_named(tmp_path: Path, run: Run, text: str, message: str) -> None:
    """With what was expected, and no page is written."""
    file = tmp_path / "odd.json"
    file.write_text(text)
    done = run("report", file, "-o", tmp_path / "report.html")
    assert done.returncode == 2
    assert re.search(message, done.stderr)
    assert list(tmp_path.iterdir()) == [file]


def test_missing_and_empty_inputs_are_named(tmp_path: Path, run: Run) -> None:
    """A missing file, a folder without results, and an artifact without data."""
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        read_results([tmp_path / "none.json"])
    with pytest.raises(InputError, match=r"the folder holds no \*\.json"):
        read_results([tmp_path])
    done = run("report", tmp_path, "-o", tmp_path / "report.html", "--data", tmp_path)
    assert (done.returncode, "--artifact and --data go together" in done.stderr) == (2, True)


def test_all_committed_results_are_read(tmp_path: Path) -> None:
    """Every file in benchmarks/results makes a report, the figures of a server under load among them."""
    results = read_results([COMMITTED])
    write_report(tmp_path / "report.html", results)
    page = (tmp_path / "report.html").read_text()
    assert "A server under load, beside the session without it" in page
    assert "python -m benchmarks.serving ARTIFACT" in page
