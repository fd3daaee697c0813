"""Results as one HTML page that needs nothing beside it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from reidexport.evaluation.scoring import Evaluation
from reidexport.files import replaced_when_whole
from reidexport.records.accuracy import EvaluationRecord, ParityTable, Ranks, Verification
from reidexport.records.base import Measurement
from reidexport.records.speed import Benchmark, BenchReport, PrecisionsRecord
from reidexport.report import accuracy, gpu_checks, peers, people, provenance, speeds
from reidexport.report.accuracy import runs_in
from reidexport.report.blocks import Fact, breakable, with_machine_numbers
from reidexport.report.results import Results
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
    page = report_page(results, evaluation, artifact, title)
    with replaced_when_whole(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


def report_page(results: Results, evaluation: Evaluation | None, artifact: str, title: str) -> str:
    """The page's HTML; see :func:`write_report`."""
    results = with_machine_numbers(results)
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
        gpu_checks.gpu_checks(results),
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
    return environment.get_template("report.html").render(
        title=title,
        machines=provenance.machine_line(results),
        num_files=len(results),
        facts=headline(results),
        sections=[section for section in sections if not section.is_empty],
        version=__version__,
    )


def headline(results: Results) -> list[Fact]:
    """The figures that a reader wants first, of those that the results hold."""
    records = [result.record for result in results]
    found = (_accuracy(records), _loss(records), _verdicts(records), _latency(records), _throughput(records))
    return [fact for fact in found if fact is not None]


def _accuracy(records: list[Measurement]) -> Fact | None:
    """Of the first reference, or of the first evaluation."""
    found: list[tuple[Ranks, str]] = [
        (table.reference, f"{table.dataset}, reference {table.reference.artifact}")
        for table in records
        if isinstance(table, ParityTable)
    ]
    found += [
        (scores, f"{scores.dataset}, {scores.artifact}")
        for scores in records
        if isinstance(scores, EvaluationRecord)
    ]
    if not found:
        return None
    ranks, note = found[0]
    return Fact(f"{percent(ranks.rank1)} / {percent(ranks.mAP)}", "rank-1 / mAP, %", note)


def _loss(records: list[Measurement]) -> Fact | None:
    losses = max(
        ((drops["mAP"], note) for record in records for drops, note in _drops(record) if "mAP" in drops),
        default=None,
    )
    return losses and Fact(points(losses[0]), "largest mAP drop, percentage points", losses[1])


def _drops(record: Measurement) -> Iterable[tuple[Mapping[str, float], str]]:
    """What artifacts lost, each with its name."""
    if isinstance(record, ParityTable):
        return [(row.drops, f"{row.artifact}, {runs_in(row)}") for row in record.rows]
    if isinstance(record, Verification):
        return [(record.drops, record.artifact)]
    if isinstance(record, PrecisionsRecord):
        return [
            (each.scores.drops, f"{record.checkpoint}, {each.name}")
            for each in record.precisions
            if each.scores
        ]
    return []


def _verdicts(records: list[Measurement]) -> Fact | None:
    verdicts = [record.passed for record in records if isinstance(record, Verification)]
    if not verdicts:
        return None
    sign = "✓" if all(verdicts) else "✗"
    return Fact(f"{sign} {sum(verdicts)} of {len(verdicts)}", "passed verification", "against the checkpoint")


def _latency(records: list[Measurement]) -> Fact | None:
    timings = [
        (row.p50_batch1_ms, f"{row.artifact}, {runs_in(row)}")
        for table in records
        if isinstance(table, ParityTable) and not table.is_busy
        for row in table.rows
    ]
    timings += [
        (batch.p50_ms, bench.artifact)
        for bench in records
        if isinstance(bench, BenchReport)
        for batch in bench.batches
        if batch.batch_size == 1
    ]
    if not timings:
        return None
    p50_ms, note = min(timings)
    return Fact(f"{digits(p50_ms)} ms", "lowest median latency, one image", note)


def _throughput(records: list[Measurement]) -> Fact | None:
    found = [
        (row.images_per_s, row.name.removeprefix("throughput of "), row.share_of_limit)
        for benchmark in records
        if isinstance(benchmark, Benchmark) and benchmark.question == "throughput"
        for row in benchmark.rows
        if row.images_per_s is not None and not isinstance(row.ratios, str)
    ]
    found += [
        (batch.images_per_s, f"{bench.artifact}, batch {batch.batch_size}", None)
        for bench in records
        if isinstance(bench, BenchReport)
        for batch in bench.batches
    ]
    if not found:
        return None
    images_per_s, note, share_of_limit = max(found, key=lambda each: each[:2])
    if share_of_limit is not None:
        note += f", {share(share_of_limit)} of the limit"
    return Fact(f"{digits(images_per_s)} images/s", "highest throughput, network alone", note)
