"""What a page is made of: sections of tables, plots and ranked lists."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from markupsafe import Markup, escape

from reidexport.records.accuracy import EvaluationRecord, ParityTable, Verification
from reidexport.records.base import Measurement
from reidexport.records.speed import Benchmark, BenchReport, OverheadRecord, ServingRecord
from reidexport.report.marks import Mark, swatch
from reidexport.report.results import Result

AboutArtifact = TypeVar(
    "AboutArtifact", Verification, EvaluationRecord, BenchReport, OverheadRecord, ServingRecord
)


class Fact(NamedTuple):
    """A figure of the headline, what it is, and of what."""

    value: str
    label: str
    note: str


@dataclass(frozen=True)
class ReportTable:
    """Each row has a cell, text or markup, for each column; the first is its heading.

    Of a cell or a column's name with several lines, those after the first are small. Those of ``text_columns`` are
    left-aligned.

    Attributes:
        caption: what is shown.
        source: the files it comes from, and the machine.
    """

    caption: str
    rows: Sequence[Mapping[str, str]]
    source: str = ""
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
    found: Sequence[Thumbnail]


@dataclass(frozen=True)
class Section:
    """One part of the page; ``notes`` are what a reader must not miss, ``pairs`` short facts with their names."""

    title: str
    lead: str
    notes: Sequence[str] = ()
    plots: Sequence[Plot] = ()
    tables: Sequence[ReportTable] = ()
    pairs: Mapping[str, str] = field(default_factory=dict)
    rankings: Sequence[Ranking] = ()

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


def by_artifact(
    caption: str,
    results: Sequence[Result[AboutArtifact]],
    cells: Callable[[AboutArtifact], Iterable[dict[str, str]]],
    text_columns: tuple[str, ...] = (),
) -> ReportTable:
    """A table whose rows, which ``cells`` gives for each record, begin with the record's artifact and file."""
    rows = [
        {"artifact": lines(result.record.artifact, source(result)), **row}
        for result in results
        for row in cells(result.record)
    ]
    return ReportTable(caption, rows, text_columns=text_columns)


def busy(results: Sequence[Result[ParityTable | Benchmark]]) -> list[str]:
    """A note for each file beside whose measurement something else ran."""
    return [
        f"{result.file}: the machine was busy with something else: its times are doubtful."
        for result in results
        if result.record.is_busy
    ]
