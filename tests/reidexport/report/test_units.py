"""How numbers are written."""

from reidexport.report.units import duration, points


def test_numbers_are_written_with_their_units() -> None:
    """Drops carry a sign unless they round to nothing; durations choose their unit."""
    assert [points(drop) for drop in (0.314, -0.314, 0.001, -0.001, None)] == [
        "+0.31",
        "−0.31",
        "0.00",
        "0.00",
        "–",
    ]
    assert [duration(seconds) for seconds in (2.5, 0.0125, 3e-6, 5e-8)] == [
        "2.50 s",
        "12.5 ms",
        "3.00 µs",
        "50.0 ns",
    ]
