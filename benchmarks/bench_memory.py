"""How much memory does a process need to open an artifact and answer batches?"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.comparison import Compare, ComparisonOptions
from benchmarks.harness.fresh_process import fresh_answer
from benchmarks.harness.subjects import Subject, device


def test_peak(compare: Compare, subject: Subject, tmp_path: Path, quick: bool) -> None:
    """The peak of the resident memory at batch 32, against the bare runtimes."""
    if device() == "cuda":
        pytest.skip("the GPU check watches the memory of GPUs")
    batch_size = 2 if quick else 32
    pixels = subject.pixels(batch_size)
    np.save(tmp_path / "pixels.npy", pixels)
    np.save(tmp_path / "own.npy", subject.own_input(pixels))
    ours = subject.session.run(pixels)

    def peaks(side: str, pixels_name: str) -> Callable[[], list[float]]:
        def peak() -> list[float]:
            report = fresh_answer(side, subject.path, subject.session.backend, tmp_path / pixels_name)
            subject.check(np.array(report.features), ours)
            return [report.peak_mib]

        return peak

    row = compare(
        f"memory of {subject}, batch {batch_size}",
        "not time but the peak of the resident memory, in MiB, of a fresh process that opens the file and answers the "
        "same batch three times, interpreter, libraries and pixels included; ratio: a peer's peak over ours",
        peaks("reidexport", "pixels.npy"),
        {name: peaks(name, "own.npy") for name in subject.bare_peers()},
        ComparisonOptions(rounds=3, measure=lambda peak: peak(), unit="peak_mib"),
    )
    row |= subject.about(batch_size=batch_size)
