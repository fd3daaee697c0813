"""What a page is made of: sections of tables, plots and ranked lists."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

from reidexport.records.base import Measurement
from reidexport.report.marks import Mark, swatch
from reidexport.report.results import Machine, Result, Results


@dataclass(frozen=True)
class Fact:
    """A figure of the headline, what it is, and of what."""

    value: str
    label: str
    note: str


@dataclass(frozen=True)
class ReportTable:
    """Cells as text or markup; the first of each row is its heading, those of ``text_columns`` are left-aligned.

    Of a cell or a column's name with several lines, those after the first are small.

    Attributes:
        caption: what is shown.
        source: the files it comes from, and the machine.
    """

    caption: str
    source: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    text_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plot:
    """A plot with its caption; ``key`` is a table of what its marks mean, and of the figures."""

    svg: Markup
    caption: str
    key: ReportTable | None = None


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
    """One part of the page; ``notes`` are what a reader must not miss, ``pairs`` short facts with their names."""

    title: str
    lead: str
    notes: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    rankings: tuple[Ranking, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the results have nothing for it; ``pairs`` alone are no section."""
        return not (self.notes or self.plots or self.rankings or any(table.rows for table in self.tables))


def lines(*parts: str | None) -> str:
    """A cell of several lines, of the parts that there are."""
    return "\n".join(part for part in parts if part)


def marked(mark: Mark, text: str, number: str = "") -> Markup:
    """A cell that begins with a mark, and its number."""
    return Markup("{}{}{}").format(
        swatch(mark), Markup("<b>{}</b> ").format(number) if number else "", breakable(text)
    )


def breakable(text: str) -> Markup:
    """Text that may break after underscores and slashes, as long names of files must; markup stays as it is."""
    if isinstance(text, Markup):
        return text
    return Markup(re.sub(r"([_/])(?=\w\w)", r"\1<wbr>", str(escape(text))))  # noqa: S704 - escaped


def source(*results: Result[Measurement]) -> str:
    """The files of results of one machine, and that machine's number where the report has several."""
    files = ", ".join(dict.fromkeys(result.file for result in results))
    number = results[0].machine_number
    return files if number is None else f"{files}, machine {number}"


def machines(results: Results) -> list[Machine]:
    """The different machines, in the order in which the results name them."""
    return list(dict.fromkeys(result.machine for result in results))


def with_machine_numbers(results: Results) -> Results:
    """The results, each with the number of its machine if there are several machines."""
    known = machines(results)
    if len(known) < 2:
        return results
    return [replace(result, machine_number=known.index(result.machine) + 1) for result in results]


def busy(is_busy: bool, file: str) -> tuple[str, ...]:
    """A note where something else ran beside a measurement."""
    return (f"{file}: the machine was busy with something else: its times are doubtful.",) if is_busy else ()
