"""How much memory does a process need to open an artifact and answer batches?"""

from pathlib import Path

import pytest

from benchmarks.harness.comparison import Compare, ComparisonOptions
from benchmarks.harness.subjects import Subject, device, fresh_sides


def test_peak(compare: Compare, subject: Subject, tmp_path: Path, quick: bool) -> None:
    """The peak of the resident memory at batch 32, against the bare runtimes."""
    if device() == "cuda":
        pytest.skip("the GPU check watches the memory of GPUs")
    batch_size = 2 if quick else 32
    sides = fresh_sides(subject, batch_size, tmp_path, "peak_mib")
    row = compare(
        f"memory of {subject}, batch {batch_size}",
        "not time but the peak of the resident memory, in MiB, of a fresh process that opens the file and answers the "
        "same batch three times, interpreter, libraries and pixels included; ratio: a peer's peak over ours",
        sides.pop("reidexport"),
        sides,
        ComparisonOptions(rounds=3, measure=lambda peak: peak(), unit="peak_mib"),
    )
    row |= subject.about(batch_size=batch_size)
