"""Results as one HTML page that needs nothing beside it."""

from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from reidexport.evaluation.scoring import Evaluation
from reidexport.files import replaced_when_whole
from reidexport.records.accuracy import EvaluationRecord, ParityTable, Ranks, Verification
from reidexport.records.speed import Benchmark, BenchReport, PrecisionsRecord
from reidexport.report import accuracy, peers, people, provenance, speeds
from reidexport.report.accuracy import runs_in
from reidexport.report.blocks import Fact, breakable
from reidexport.report.results import Results, records_of
from reidexport.report.units import digits, percent, points, share
from reidexport.version import __version__


def write_report(
    out: Path,
    results: Results,
    evaluation: Evaluation | None = None,
    artifact: str = "",
    title: str = "Re-identification report",
) -> None:
    """Write the page, whole or not at all.

    Args:
        out: the HTML file.
        results: as :func:`reidexport.report.read_results` reads them.
        evaluation: whose ranked lists and features to show; None shows neither.
        artifact: what to call the artifact of ``evaluation``.
        title: the heading of the page.

    Raises:
        ImageError: an image of ``evaluation`` cannot be read.
        InputError: ``out`` cannot be written to.
    """
    sections = [
        accuracy.trade_off(results),
        peers.throughput(results),
        accuracy.parity(results),
        accuracy.verification(results),
        accuracy.evaluations(results),
        accuracy.thresholds(results),
        accuracy.precisions(results),
        speeds.precision_speeds(results),
        *peers.other_questions(results),
        speeds.command_speeds(results),
        speeds.gpu_checks(results),
    ]
    if evaluation is not None:
        sections += [people.ranked_lists(evaluation, artifact), people.features_of_some(evaluation, artifact)]
    sections += [provenance.machines_and_versions(results), provenance.how_measured(results)]
    environment = Environment(
        loader=PackageLoader("reidexport.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    page = environment.get_template("report.html").render(
        title=title,
        machines=provenance.machine_line(results),
        num_files=len(results),
        facts=headline(results),
        sections=[section for section in sections if not section.is_empty],
        version=__version__,
    )
    with replaced_when_whole(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


def headline(results: Results) -> list[Fact]:
    """The figures that a reader wants first, of those that the results hold."""
    figures = (_accuracy, _loss, _verdicts, _latency, _throughput)
    return [fact for figure in figures for fact in figure(results)]


def _accuracy(results: Results) -> Iterator[Fact]:
    """Of the first reference, or of the first evaluation."""
    found: list[tuple[Ranks, str]] = [
        (table.reference, f"{table.dataset}, reference {table.reference.artifact}")
        for table in records_of(results, ParityTable)
    ]
    scores = records_of(results, EvaluationRecord)
    found += [(record, f"{record.dataset}, {record.artifact}") for record in scores]
    for ranks, note in found[:1]:
        yield Fact(f"{percent(ranks.rank1)} / {percent(ranks.mAP)}", "rank-1 / mAP, %", note)


def _loss(results: Results) -> Iterator[Fact]:
    tables, verified = records_of(results, ParityTable), records_of(results, Verification)
    drops = [(row.drops, f"{row.artifact}, {runs_in(row)}") for table in tables for row in table.rows]
    drops += [(record.drops, record.artifact) for record in verified]
    drops += [
        (each.scores.drops, f"{record.checkpoint}, {each.name}")
        for record in records_of(results, PrecisionsRecord)
        for each in record.precisions
        if each.scores
    ]
    losses = [(of_artifact["mAP"], note) for of_artifact, note in drops if "mAP" in of_artifact]
    if losses:
        drop, note = max(losses)
        yield Fact(points(drop), "largest mAP drop, percentage points", note)


def _verdicts(results: Results) -> Iterator[Fact]:
    verdicts = [record.passed for record in records_of(results, Verification)]
    if verdicts:
        passed = f"{'✓' if all(verdicts) else '✗'} {sum(verdicts)} of {len(verdicts)}"
        yield Fact(passed, "passed verification", "against the checkpoint")


def _latency(results: Results) -> Iterator[Fact]:
    timings = [
        (row.p50_batch1_ms, f"{row.artifact}, {runs_in(row)}")
        for table in records_of(results, ParityTable)
        for row in table.rows
        if not table.is_busy
    ]
    timings += [
        (batch.p50_ms, bench.artifact)
        for bench in records_of(results, BenchReport)
        for batch in bench.batches
        if batch.batch_size == 1
    ]
    if timings:
        p50_ms, note = min(timings)
        yield Fact(f"{digits(p50_ms)} ms", "lowest median latency, one image", note)


def _throughput(results: Results) -> Iterator[Fact]:
    found = [
        (row.images_per_s, row.name.removeprefix("throughput of "), row.share_of_limit)
        for benchmark in records_of(results, Benchmark)
        for row in benchmark.rows
        if benchmark.question == "throughput" and row.images_per_s and not isinstance(row.ratios, str)
    ]
    found += [
        (batch.images_per_s, f"{bench.artifact}, batch {batch.batch_size}", None)
        for bench in records_of(results, BenchReport)
        for batch in bench.batches
    ]
    if found:
        images_per_s, note, share_of_limit = max(found, key=lambda each: each[:2])
        if share_of_limit is not None:
            note += f", {share(share_of_limit)} of the limit"
        yield Fact(f"{digits(images_per_s)} images/s", "highest throughput, network alone", note)
