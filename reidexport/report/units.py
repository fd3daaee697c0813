"""How a page writes its numbers, with their units."""

from reidexport.records.speed import Spread

NONE = "–"


def percent(fraction: float | None) -> str:
    """A fraction as a percentage, without the sign: 0.9148 -> 91.48."""
    return NONE if fraction is None else f"{100 * fraction:.2f}"


def share(fraction: float) -> str:
    """A fraction as a percentage with three digits that count: 0.708 -> 70.8 %."""
    return f"{digits(100 * fraction)} %"


def points(drop: float | None) -> str:
    """A drop in percentage points, its sign always there; one that rounds to nothing has none."""
    return NONE if drop is None else f"{drop:+z.2f}".replace("+0.00", "0.00").replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{digits(seconds / size)} {unit}"
    return f"{digits(seconds * 1e9)} ns"


def count(number: int) -> str:
    """A whole number, in groups of three digits."""
    return f"{number:,}".replace(",", "\N{THIN SPACE}")


def ratio(spread: Spread | None) -> str:
    """A ratio as 2.41 ×, and on a second line its lowest and highest."""
    if spread is None:
        return NONE
    return f"{digits(spread.median)} ×\n{digits(spread.lowest)} to {digits(spread.highest)}"


def digits(value: float | None) -> str:
    """At least three digits, not more than two of them decimals: latencies, images per second."""
    if value is None:
        return NONE
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}".replace(",", "\N{THIN SPACE}")
