"""How long does one image take, one after the other?"""

from functools import partial

from benchmarks.harness.comparison import Compare, ComparisonOptions
from benchmarks.harness.subjects import Subject
from benchmarks.harness.turns import calls_in_a_row


def test_single_stream(compare: Compare, subject: Subject, quick: bool) -> None:
    """Batch 1, each call after the other's answer, against the vendors' own calls and torch."""
    pixels = subject.pixels(1)
    row = compare(
        f"single-stream latency of {subject}",
        "batch 1, warm, same pixels and threads: uint8 pixels in memory to float32 features; each turn is "
        "calls in a row for 0.3 s",
        lambda: subject.session.run(pixels),
        subject.peers(pixels, compile_mode=None),
        ComparisonOptions(
            rounds=10, measure=partial(calls_in_a_row, at_least_s=0.02 if quick else 0.3), percentiles=True
        ),
    )
    row |= subject.about(batch_size=1)
