"""What a page is made of: sections of tables, plots and rows of pictures; and how its numbers are written."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from reidexport.report.results import Machine, Result

NONE = "–"


@dataclass(frozen=True)
class Fact:
    """A figure of the headline, what it is, and of what."""

    value: str
    label: str
    note: str


@dataclass(frozen=True)
class Table:
    """Cells as text; the first of each row is its heading, those of ``text_columns`` are left-aligned.

    Attributes:
        caption: what is shown.
        source: the file it comes from, and the machine.
    """

    caption: str
    source: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    text_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plot:
    """A plot with its caption."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Thumbnail:
    """An image of a ranked list: a data URI; ``sign`` is ✓, ✗, or empty for the query."""

    uri: str
    sign: str
    label: str
    distance: str
    description: str


@dataclass(frozen=True)
class Ranking:
    """A query, and what was found for it, nearest first."""

    caption: str
    query: Thumbnail
    found: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class Section:
    """One part of the page; ``notes`` are what a reader must not miss."""

    title: str
    lead: str
    notes: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    rankings: tuple[Ranking, ...] = ()


def percent(fraction: float | None) -> str:
    """A fraction as a percentage, without the sign: 0.9148 -> 91.48."""
    return NONE if fraction is None else f"{100 * fraction:.2f}"


def points(drop: float | None) -> str:
    """A drop in percentage points, its sign always there; one that rounds to nothing has none."""
    return NONE if drop is None else f"{drop:+z.2f}".replace("+0.00", "0.00").replace("-", "−")


def milliseconds(value: float | None) -> str:
    """Milliseconds with three digits that count."""
    return NONE if value is None else _digits(value)


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{_digits(seconds / size)} {unit}"
    return f"{_digits(seconds * 1e9)} ns"


def speed(images_per_s: float | None) -> str:
    """Images per second."""
    return NONE if images_per_s is None else _digits(images_per_s)


def times(ratio: float) -> str:
    """A ratio: 2.41 ×."""
    return f"{_digits(ratio)} ×"


def _digits(value: float) -> str:
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}".replace(",", "\N{THIN SPACE}")


def source(result: Result, results: Sequence[Result]) -> str:
    """The file of a result, with its machine where the report has several."""
    known = machines(results)
    if result.machine is None or len(known) < 2:
        return result.file
    return f"{result.file}, machine {known.index(result.machine) + 1}"


def machines(results: Sequence[Result]) -> list[Machine]:
    """The different machines, in the order in which the results name them."""
    return list(dict.fromkeys(result.machine for result in results if result.machine is not None))
