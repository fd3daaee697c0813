"""How long does a fresh process wait for its first feature?"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.comparison import Compare, ComparisonOptions
from benchmarks.harness.fresh_process import fresh_answer
from benchmarks.harness.subjects import Subject, device


def test_first_feature(
    compare: Compare, subject: Subject, checkpoint_file: Path | None, tmp_path: Path
) -> None:
    """A process for every turn, files in the page cache, against bare runtimes and torch eager."""
    if device() == "cuda":
        pytest.skip("the start of a GPU's driver is not measured")
    pixels = subject.pixels(1)
    np.save(tmp_path / "pixels.npy", pixels)
    np.save(tmp_path / "own.npy", subject.own_input(pixels))
    ours = subject.session.run(pixels)

    def starts(side: str, pixels_name: str) -> Callable[[], list[float]]:
        def start() -> list[float]:
            report = fresh_answer(
                side, subject.path, subject.session.backend, tmp_path / pixels_name, checkpoint_file
            )
            subject.check(np.array(report.features), ours)
            return [report.first_answer_s]

        return start

    sides = {name: starts(name, "own.npy") for name in subject.bare_peers()}
    if checkpoint_file:
        sides["torch eager"] = starts("torch eager", "pixels.npy")
    row = compare(
        f"cold start of {subject}",
        "in a fresh process, from before the first import to the first feature of one image, its pixels read from a "
        "file; opening the artifact included; torch eager: its checkpoint instead; the interpreter's own start not",
        starts("reidexport", "pixels.npy"),
        sides,
        ComparisonOptions(measure=lambda start: start()),
    )
    row |= subject.about(batch_size=1)
