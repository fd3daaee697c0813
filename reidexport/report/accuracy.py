"""Sections about answers: accuracy, what each artifact lost, thresholds, and the precision of layers."""

from collections.abc import Mapping, Sequence

from reidexport.records.accuracy import EvaluationRecord, ParityRow, ParityTable, Verification
from reidexport.records.speed import PrecisionsRecord
from reidexport.report.blocks import Plot, ReportTable, Section, busy, lines, marked, source
from reidexport.report.marks import DASHES, NUM_SERIES, SHAPES, Mark
from reidexport.report.plots import Dot, accuracy_against_latency, roc_curves
from reidexport.report.results import Result, Results, of_type
from reidexport.report.units import NONE, count, digits, percent, points

_DROP_HEADS = ("rank-1 drop\npoints", "mAP drop\npoints")
_LAYER_HEADS = ("size\nMiB", "layers")
_NUM_WORST = 10
_LEAST_DROP_POINTS = 0.005  # less is written as 0.00


def trade_off(results: Results) -> Section:
    """Accuracy against latency."""
    found = of_type(results, ParityTable)
    lead = (
        "Up and to the left is better. Colors and shapes are precisions, the hollow mark is the reference. "
        "The vertical axis does not begin at 0: read its figures."
    )
    notes = tuple(note for result in found for note in busy(result.record.is_busy, result.file))
    plots = tuple(_trade_off_plot(f"accuracy-{i}", result) for i, result in enumerate(found))
    return Section("Accuracy against latency", lead, notes, plots)


def _trade_off_plot(name: str, result: Result[ParityTable]) -> Plot:
    table = result.record
    precisions = list(dict.fromkeys(row.precision for row in table.all_rows))
    dots, cells = [], []
    for number, row in enumerate(table.all_rows, 1):
        i = precisions.index(row.precision)
        mark = Mark(i, SHAPES[i % len(SHAPES)], is_hollow=row is table.reference)
        dots.append(Dot(str(number), row.p50_batch1_ms, row.mAP, mark))
        cells.append((marked(mark, _name(row), str(number)), digits(row.p50_batch1_ms), percent(row.mAP)))
    key = ReportTable(
        "The numbers in the plot", source(result), ("artifact", "median latency\nms", "mAP\n%"), cells
    )
    svg = accuracy_against_latency(name, dots)
    return Plot(svg, f"{table.dataset}, {table.metric} distance, one image at a time.", key)


def parity(results: Results) -> Section:
    """What each artifact lost against the reference, and the queries that lost most."""
    tables: list[ReportTable] = []
    notes: list[str] = []
    for result in of_type(results, ParityTable):
        tables += [_parity_table(result), _worst_queries(result)]
        notes += busy(result.record.is_busy, result.file)
        notes += [f"{row.artifact}: {warning}" for row in result.record.all_rows for warning in row.warnings]
        notes += [
            f"{each.artifact} on {each.backend}: not run: {each.reason.removeprefix(f'{each.artifact}: ')}"
            for each in result.record.not_run
        ]
    lead = (
        "Drops are in percentage points, reference minus artifact: positive is a loss. Cosines are of each image's "
        "feature with the reference's. Images/s are from files to features, during the evaluation."
    )
    return Section("Parity with the reference", lead, tuple(notes), tables=tuple(tables))


def _name(row: ParityRow) -> str:
    return lines(row.artifact, runs_in(row))


def runs_in(row: ParityRow) -> str:
    """What an artifact computes in, and what runs it."""
    return f"{row.precision} · {row.backend}"


def _parity_table(result: Result[ParityTable]) -> ReportTable:
    rows = [
        (
            _name(row),
            *(percent(value) for value in (row.rank1, row.mAP, row.mINP)),
            *_drops(row.drops),
            f"{row.min_cosine:.6f}",
            digits(row.p50_batch1_ms),
            digits(row.images_per_s),
        )
        for row in result.record.all_rows
    ]
    columns = (
        *("artifact", "rank-1\n%", "mAP\n%", "mINP\n%", *_DROP_HEADS),
        *("lowest cosine", "median latency\nms, batch 1", "images/s"),
    )
    caption = f"Artifacts on {result.record.dataset}; the first is the reference"
    return ReportTable(caption, source(result), columns, rows)


def _drops(drops: Mapping[str, float]) -> tuple[str, str]:
    """The cells of the columns ``_DROP_HEADS``."""
    return points(drops.get("rank1")), points(drops.get("mAP"))


def _worst_queries(result: Result[ParityTable]) -> ReportTable:
    lost = [
        (worst, row)
        for row in result.record.rows
        for worst in row.worst_queries
        if worst.ap_drop >= _LEAST_DROP_POINTS
    ]
    lost.sort(key=lambda each: -each[0].ap_drop)
    rows = [
        (
            worst.image,
            _name(row),
            count(worst.reference_rank),
            count(worst.candidate_rank),
            points(worst.ap_drop),
        )
        for worst, row in lost[:_NUM_WORST]
    ]
    columns = ("query", "artifact", "first match\nreference", "first match\nartifact", "AP drop\npoints")
    caption = "Queries that lost most: the rank of their first match, and their average precision (AP)"
    if len(lost) > _NUM_WORST:
        caption += f"; {_NUM_WORST} of the {len(lost)} in the file"
    return ReportTable(caption, source(result), columns, rows, ("artifact",))


def verification(results: Results) -> Section:
    """The verdicts of ``reidexport verify``."""
    found = of_type(results, Verification)
    rows = [
        (
            lines(verified.artifact, source(result)),
            "✓ passed" if verified.passed else "✗ FAILED",
            count(verified.num_images),
            f"{verified.min_cosine:.6f}",
            f"{verified.max_relative_l2:.1e}",
            *_drops(verified.drops),
            percent(verified.top1_agreement),
        )
        for result in found
        for verified in [result.record]
    ]
    columns = (
        *("artifact", "verdict", "images", "lowest cosine", "largest difference\nrelative L2"),
        *(*_DROP_HEADS, "same nearest image\n% of queries"),
    )
    table = ReportTable("Each artifact's features beside its checkpoint's", "", columns, rows, ("verdict",))
    failures = tuple(
        f"{each.record.artifact}: {failure}" for each in found for failure in each.record.failures
    )
    lead = "The gate of reidexport verify, image by image. Drops in percentage points: positive is a loss."
    return Section("Verified against the checkpoint", lead, failures, tables=(table,))


def evaluations(results: Results) -> Section:
    """The scores of ``reidexport eval``."""
    rows = [
        (
            lines(scores.artifact, source(result)),
            scores.dataset,
            scores.metric + (", re-ranked" if scores.rerank else ""),
            *map(percent, (scores.rank1, scores.rank5, scores.rank10, scores.mAP, scores.mINP)),
        )
        for result in of_type(results, EvaluationRecord)
        for scores in [result.record]
    ]
    columns = ("artifact", "data set", "distance", "rank-1", "rank-5", "rank-10", "mAP", "mINP")
    table = ReportTable("Scores in per cent", "", columns, rows, ("data set", "distance"))
    return Section("Accuracy", "Every query against the whole gallery.", tables=(table,))


def thresholds(results: Results) -> Section:
    """Operating points, and the curves that they are on."""
    plots: list[Plot] = []
    tables: list[ReportTable] = []
    notes: list[str] = []
    for result in results:
        record = result.record
        if isinstance(record, EvaluationRecord):
            rows: Sequence[ParityRow | EvaluationRecord] = (record,)
            notes += [f"{record.artifact}: {warning}" for warning in record.warnings]
        elif isinstance(record, ParityTable):
            rows = record.all_rows
        else:
            continue
        marks = [
            Mark(i % (NUM_SERIES - 1), line=DASHES[i % len(DASHES)]) if i else Mark(NUM_SERIES - 1, line="-")
            for i in range(len(rows))
        ]
        key = _operating_points(record.metric, source(result), rows, marks)
        curves = [
            (mark, row.roc)
            for mark, row in zip(marks, rows, strict=True)
            if row.roc is not None and max(row.roc.fpr, default=0) > 0
        ]
        if curves:
            below = "; below, each minus the first, which is drawn broad" if len(curves) > 1 else ""
            caption = f"{record.dataset}. Above, the curves{below}."
            plots.append(Plot(roc_curves(f"roc-{len(plots)}", curves), caption, key))
        elif key.columns[1:]:
            tables.append(key)
    lead = (
        "Two images are taken for one person when their distance is at most the threshold. False positives are pairs "
        "of different people that pass, true positives pairs of one person that do."
    )
    return Section("Distance thresholds", lead, tuple(notes), tuple(plots), tuple(tables))


def _operating_points(
    metric: str, files: str, rows: Sequence[ParityRow | EvaluationRecord], marks: Sequence[Mark]
) -> ReportTable:
    pairs = {point.fpr: point.num_false for row in reversed(rows) for point in row.operating_points}
    rates = sorted(pairs, reverse=True)
    cells = []
    for mark, row in zip(marks, rows, strict=True):
        found = {point.fpr: point for point in row.operating_points}
        figures = [
            lines(percent(point.tpr), f"{point.threshold:.4f}") if (point := found.get(rate)) else NONE
            for rate in rates
        ]
        name = row.artifact if isinstance(row, EvaluationRecord) else _name(row)
        cells.append((marked(mark, name), *figures))
    heads = [lines(f"at {100 * rate:g} %", f"{count(pairs[rate])} pairs") for rate in rates]
    caption = f"True positives in per cent, and the {metric} distance, at each rate of false positives"
    return ReportTable(caption, files, ("artifact", *heads), cells)


def precisions(results: Results) -> Section:
    """How many layers compute in which precision, and what that costs."""
    tables = [_layers_of_artifacts(result) for result in of_type(results, ParityTable)]
    tables += [_layers_of_precisions(result) for result in of_type(results, PrecisionsRecord)]
    lead = "How many layers compute in which number format, as the file itself says."
    return Section("Precision of layers", lead, tables=tuple(tables))


def _layers_of_artifacts(result: Result[ParityTable]) -> ReportTable:
    rows = [
        (row.artifact, f"{row.size_mib:.2f}", _layers(row.layer_precisions))
        for row in result.record.rows
        if row.layer_precisions
    ]
    columns = ("artifact", *_LAYER_HEADS)
    return ReportTable(
        "Layers of each artifact", source(result), columns, list(dict.fromkeys(rows)), ("layers",)
    )


def _layers_of_precisions(result: Result[PrecisionsRecord]) -> ReportTable:
    precisions = result.record.precisions
    rows = [
        (
            *(each.name, f"{each.size_mib:.2f}", _layers(each.layer_precisions)),
            *((percent(of.rank1), percent(of.mAP), *_drops(of.drops)) if (of := each.scores) else ()),
        )
        for each in precisions
    ]
    scores = ("rank-1\n%", "mAP\n%", *_DROP_HEADS) if precisions[0].scores else ()
    columns = ("precision", *_LAYER_HEADS, *scores)
    return ReportTable(result.record.architecture, source(result), columns, rows, ("layers",))


def _layers(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items(), key=lambda item: -item[1]))
