"""Results as one HTML page that needs nothing beside it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from reidexport.evaluation.scoring import Evaluation
from reidexport.files import replaced_when_whole
from reidexport.records.accuracy import EvaluationRecord, ParityTable, Ranks, Verification
from reidexport.records.speed import Benchmark, BenchReport, PrecisionsRecord
from reidexport.report import accuracy, peers, people, speeds
from reidexport.report.accuracy import runs_in
from reidexport.report.blocks import Fact, ReportTable, Section, breakable
from reidexport.report.results import Results, machines, records_of
from reidexport.report.units import NONE, digits, percent, points, share
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
        results: as one call of :func:`reidexport.report.read_results` reads them, which numbers their machines.
        evaluation: whose ranked lists and features to show; None shows neither.
        artifact: what to call the artifact of ``evaluation``.
        title: the heading of the page.

    Raises:
        ImageError: an image of ``evaluation`` cannot be read.
        InputError: ``out`` cannot be written to.
    """
    throughput, *other_comparisons = peers.comparisons(results)
    sections = [
        accuracy.trade_off(results),
        throughput,
        accuracy.parity(results),
        accuracy.verification(results),
        accuracy.evaluations(results),
        accuracy.thresholds(results),
        accuracy.precisions(results),
        speeds.precision_speeds(results),
        *other_comparisons,
        speeds.command_speeds(results),
        speeds.gpu_checks(results),
    ]
    if evaluation is not None:
        sections += [people.ranked_lists(evaluation, artifact), people.features_of_some(evaluation, artifact)]
    sections += [_machines_and_versions(results), _how_measured(results)]
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
        machines=_machine_line(results),
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


def _machine_line(results: Results) -> str:
    """The machines in one line, for the head of the page; numbered as elsewhere where there are several."""
    known = machines(results)
    return "; ".join(
        (f"machine {number}: " if len(known) > 1 else "")
        + f"{machine.cpu}, {machine.cores} cores, {', '.join(machine.gpus) or 'no GPU'}"
        for number, machine in enumerate(known, 1)
    )


def _machines_and_versions(results: Results) -> Section:
    """Every machine, and the versions of what ran on it."""
    rows = [
        {
            "machine": str(number),
            "processor": machine.cpu,
            "cores": str(machine.cores),
            "memory\nGiB": NONE if machine.memory_mib is None else f"{machine.memory_mib / 1024:.1f}",
            "GPUs": ", ".join(machine.gpus) or "none",
            "system": machine.system,
        }
        for number, machine in enumerate(machines(results), 1)
    ]
    table = ReportTable("Machines", rows, text_columns=("processor", "GPUs", "system"))
    return Section("Machines and versions", "", tables=[table], pairs=_versions(results))


def _versions(results: Results) -> dict[str, str]:
    """Each package with its version; where the results have several, in how many files each is."""
    found: dict[str, Counter[str]] = {}
    for result in results:
        for package, version in result.record.versions.items():
            found.setdefault(package, Counter())[version] += 1
    return {
        package: ", ".join(v if len(versions) == 1 else f"{v} ({n} files)" for v, n in versions.most_common())
        for package, versions in found.items()
    }


def _how_measured(results: Results) -> Section:
    """What wrote each file, and what was inside the timed region."""
    tables = []
    for caption, column, regions in (
        ("What wrote the files", "command", [(each.record.command,) for each in results]),
        ("What is inside the timed region", "timed", [each.record.timed_regions for each in results]),
    ):
        files: dict[str, list[str]] = {}
        for result, whats in zip(results, regions, strict=True):
            for what in whats:
                files.setdefault(what, []).append(result.file)
        rows = [{"files": ", ".join(of_what), column: what} for what, of_what in files.items()]
        tables.append(ReportTable(caption, rows, text_columns=(column,)))
    return Section("How each number was measured", "", tables=tables)
