"""Results as one HTML page that needs nothing beside it."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from reidexport.evaluation.scoring import Evaluation
from reidexport.files import replaced_when_whole
from reidexport.report import accuracy, gpu_checks, peers, people, provenance, speeds
from reidexport.report.blocks import Fact, breakable, milliseconds, percent, points, share, speed
from reidexport.report.results import (
    BenchmarkResult,
    BenchResult,
    EvalResult,
    ParityResult,
    PrecisionsResult,
    Result,
    VerifyResult,
)
from reidexport.version import __version__


def write_report(
    out: Path,
    results: Sequence[Result],
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


def report_page(results: Sequence[Result], evaluation: Evaluation | None, artifact: str, title: str) -> str:
    """The page's HTML; see :func:`write_report`."""
    found = [
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
        found += [people.ranked_lists(evaluation, artifact), people.features_of_some(evaluation, artifact)]
    found += [provenance.machines_and_versions(results), provenance.how_measured(results)]
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
        sections=[section for section in found if section is not None],
        version=__version__,
    )


def headline(results: Sequence[Result]) -> list[Fact]:
    """The figures that a reader wants first, of those that the results hold."""
    found = (_accuracy(results), _loss(results), _verdicts(results), _latency(results), _throughput(results))
    return [fact for fact in found if fact is not None]


def _accuracy(results: Sequence[Result]) -> Fact | None:
    for result in results:
        if isinstance(result, ParityResult):
            ranks, note = result.reference, f"{result.dataset}, reference {result.reference.artifact}"
            return Fact(f"{percent(ranks.rank1)} / {percent(ranks.mAP)}", "rank-1 / mAP, %", note)
    for result in results:
        if isinstance(result, EvalResult):
            note = f"{result.dataset}, {result.artifact}"
            return Fact(f"{percent(result.rank1)} / {percent(result.mAP)}", "rank-1 / mAP, %", note)
    return None


def _loss(results: Sequence[Result]) -> Fact | None:
    losses = [
        (row.drops["mAP"], f"{row.artifact}, {accuracy.row_label(row)}")
        for result in results
        if isinstance(result, ParityResult)
        for row in result.rows
        if "mAP" in row.drops
    ]
    losses += [
        (result.drops["mAP"], result.artifact)
        for result in results
        if isinstance(result, VerifyResult) and result.drops and "mAP" in result.drops
    ]
    losses += [
        (precision.drops["mAP"], f"{result.checkpoint}, {precision.name}")
        for result in results
        if isinstance(result, PrecisionsResult)
        for precision in result.precisions
        if "mAP" in precision.drops
    ]
    if not losses:
        return None
    drop, note = max(losses)
    return Fact(points(drop), "largest mAP drop, percentage points", note)


def _verdicts(results: Sequence[Result]) -> Fact | None:
    verdicts = [result.passed for result in results if isinstance(result, VerifyResult)]
    if not verdicts:
        return None
    sign = "✓" if all(verdicts) else "✗"
    return Fact(f"{sign} {sum(verdicts)} of {len(verdicts)}", "passed verification", "against the checkpoint")


def _latency(results: Sequence[Result]) -> Fact | None:
    timings = [
        (row.p50_batch1_ms, f"{row.artifact}, {accuracy.row_label(row)}")
        for result in results
        if isinstance(result, ParityResult) and not result.is_busy
        for row in result.rows
        if row.p50_batch1_ms is not None
    ]
    timings += [
        (batch.p50_ms, result.artifact)
        for result in results
        if isinstance(result, BenchResult)
        for batch in result.batches
        if batch.batch_size == 1
    ]
    if not timings:
        return None
    p50_ms, note = min(timings)
    return Fact(f"{milliseconds(p50_ms)} ms", "lowest median latency, one image", note)


def _throughput(results: Sequence[Result]) -> Fact | None:
    speeds_found = [
        (
            row.images_per_s,
            row.name.removeprefix("throughput of ")
            + ("" if row.share_of_limit is None else f", {share(row.share_of_limit)} of the limit"),
        )
        for result in results
        if isinstance(result, BenchmarkResult) and result.question == "throughput"
        for row in result.rows
        if row.images_per_s is not None and not isinstance(row.ratios, str)
    ]
    speeds_found += [
        (batch.images_per_s, f"{result.artifact}, batch {batch.batch_size}")
        for result in results
        if isinstance(result, BenchResult)
        for batch in result.batches
    ]
    if not speeds_found:
        return None
    images_per_s, note = max(speeds_found)
    return Fact(f"{speed(images_per_s)} images/s", "highest throughput, network alone", note)
