"""How long does a fresh process wait for its first feature?"""

from pathlib import Path

import pytest

from benchmarks.harness.comparison import Compare, ComparisonOptions
from benchmarks.harness.subjects import Subject, device, fresh_sides


def test_first_feature(
    compare: Compare, subject: Subject, checkpoint_file: Path | None, tmp_path: Path
) -> None:
    """A process for every turn, files in the page cache, against bare runtimes and torch eager."""
    if device() == "cuda":
        pytest.skip("the start of a GPU's driver is not measured")
    sides = fresh_sides(subject, 1, tmp_path, "first_answer_s", checkpoint_file)
    row = compare(
        f"cold start of {subject}",
        "in a fresh process, from before the first import to the first feature of one image, its pixels read from a "
        "file; opening the artifact included; torch eager: its checkpoint instead; the interpreter's own start not",
        sides.pop("reidexport"),
        sides,
        ComparisonOptions(measure=lambda start: start()),
    )
    row |= subject.about(batch_size=1)
