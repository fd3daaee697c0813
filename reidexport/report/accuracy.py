"""Sections about answers: accuracy, what each artifact lost, thresholds, and the precision of layers."""

from collections.abc import Mapping, Sequence

from reidexport.report.blocks import Plot, ReportTable, Section, busy, lines, marked, source
from reidexport.report.marks import DASHES, NUM_SERIES, SHAPES, Mark
from reidexport.report.plots import Dot, accuracy_against_latency, roc_curves
from reidexport.report.results import (
    EvalResult,
    ParityResult,
    ParityRowRecord,
    PrecisionsResult,
    Result,
    VerifyResult,
    of_type,
)
from reidexport.report.units import NONE, count, digits, percent, points

_DROP_HEADS = ("rank-1 drop\npoints", "mAP drop\npoints")
_LAYER_HEADS = ("size\nMiB", "layers")
_NUM_WORST = 10
_LEAST_DROP_POINTS = 0.005  # less is written as 0.00


def trade_off(results: Sequence[Result]) -> Section:
    """Accuracy against latency."""
    timed = [
        (result, rows)
        for result in of_type(results, ParityResult)
        if (rows := [row for row in result.all_rows if row.p50_batch1_ms])
    ]
    lead = (
        "Up and to the left is better. Colors and shapes are precisions, the hollow mark is the reference. "
        "The vertical axis does not begin at 0: read its figures."
    )
    notes = tuple(note for result, _ in timed for note in busy(result))
    plots = tuple(_trade_off_plot(f"accuracy-{i}", *each) for i, each in enumerate(timed))
    return Section("Accuracy against latency", lead, notes, plots)


def _trade_off_plot(name: str, result: ParityResult, rows: Sequence[ParityRowRecord]) -> Plot:
    precisions = list(dict.fromkeys(row.precision for row in rows))
    dots, cells = [], []
    for number, row in enumerate(rows, 1):
        i = precisions.index(row.precision)
        mark = Mark(i, SHAPES[i % len(SHAPES)], is_hollow=row is result.reference)
        dots.append(Dot(str(number), row.p50_batch1_ms or 0.0, row.mAP, mark))
        cells.append((marked(mark, _name(row), str(number)), digits(row.p50_batch1_ms), percent(row.mAP)))
    key = ReportTable(
        "The numbers in the plot", source(result), ("artifact", "median latency\nms", "mAP\n%"), cells
    )
    svg = accuracy_against_latency(name, dots)
    return Plot(svg, f"{result.dataset}, {result.metric} distance, one image at a time.", key)


def parity(results: Sequence[Result]) -> Section:
    """What each artifact lost against the reference, and the queries that lost most."""
    tables: list[ReportTable] = []
    notes: list[str] = []
    for result in of_type(results, ParityResult):
        tables += [_parity_table(result), _worst_queries(result)]
        notes += busy(result)
        notes += [f"{row.artifact}: {warning}" for row in result.all_rows for warning in row.warnings]
        notes += [
            f"{each.artifact} on {each.backend}: not run: {each.reason.removeprefix(f'{each.artifact}: ')}"
            for each in result.not_run
        ]
    lead = (
        "Drops are in percentage points, reference minus artifact: positive is a loss. Cosines are of each image's "
        "feature with the reference's. Images/s are from files to features, during the evaluation."
    )
    return Section("Parity with the reference", lead, tuple(notes), tables=tuple(tables))


def _name(row: ParityRowRecord) -> str:
    return lines(row.artifact, row.runs_in)


def _parity_table(result: ParityResult) -> ReportTable:
    rows = [
        (
            _name(row),
            *(percent(value) for value in (row.rank1, row.mAP, row.mINP)),
            *_drops(row.drops),
            f"{row.min_cosine:.6f}",
            digits(row.p50_batch1_ms),
            digits(row.images_per_s),
        )
        for row in result.all_rows
    ]
    columns = (
        *("artifact", "rank-1\n%", "mAP\n%", "mINP\n%", *_DROP_HEADS),
        *("lowest cosine", "median latency\nms, batch 1", "images/s"),
    )
    caption = f"Artifacts on {result.dataset}; the first is the reference"
    return ReportTable(caption, source(result), columns, rows)


def _drops(drops: Mapping[str, float]) -> tuple[str, str]:
    """The cells of the columns ``_DROP_HEADS``."""
    return points(drops.get("rank1")), points(drops.get("mAP"))


def _worst_queries(result: ParityResult) -> ReportTable:
    lost = [
        (worst.ap_drop, worst, row)
        for row in result.rows
        for worst in row.worst_queries
        if worst.ap_drop is not None and worst.ap_drop >= _LEAST_DROP_POINTS
    ]
    lost.sort(key=lambda each: -each[0])
    rows = [
        (worst.image, _name(row), count(worst.reference_rank), count(worst.candidate_rank), points(drop))
        for drop, worst, row in lost[:_NUM_WORST]
    ]
    columns = ("query", "artifact", "first match\nreference", "first match\nartifact", "AP drop\npoints")
    caption = "Queries that lost most: the rank of their first match, and their average precision (AP)"
    if len(lost) > _NUM_WORST:
        caption += f"; {_NUM_WORST} of the {len(lost)} in the file"
    return ReportTable(caption, source(result), columns, rows, ("artifact",))


def verification(results: Sequence[Result]) -> Section:
    """The verdicts of ``reidexport verify``."""
    found = of_type(results, VerifyResult)
    rows = [
        (
            lines(result.artifact, source(result)),
            "✓ passed" if result.passed else "✗ FAILED",
            count(result.num_images),
            f"{result.min_cosine:.6f}",
            f"{result.max_relative_l2:.1e}",
            *_drops(result.drops or {}),
            percent(result.top1_agreement),
        )
        for result in found
    ]
    columns = (
        *("artifact", "verdict", "images", "lowest cosine", "largest difference\nrelative L2"),
        *(*_DROP_HEADS, "same nearest image\n% of queries"),
    )
    table = ReportTable("Each artifact's features beside its checkpoint's", "", columns, rows, ("verdict",))
    failures = tuple(f"{result.artifact}: {failure}" for result in found for failure in result.failures)
    lead = "The gate of reidexport verify, image by image. Drops in percentage points: positive is a loss."
    return Section("Verified against the checkpoint", lead, failures, tables=(table,))


def evaluations(results: Sequence[Result]) -> Section:
    """The scores of ``reidexport eval``."""
    rows = [
        (
            lines(result.artifact, source(result)),
            result.dataset,
            result.metric + (", re-ranked" if result.rerank else ""),
            *(
                percent(value)
                for value in (result.rank1, result.rank5, result.rank10, result.mAP, result.mINP)
            ),
        )
        for result in of_type(results, EvalResult)
    ]
    columns = ("artifact", "data set", "distance", "rank-1", "rank-5", "rank-10", "mAP", "mINP")
    table = ReportTable("Scores in per cent", "", columns, rows, ("data set", "distance"))
    return Section("Accuracy", "Every query against the whole gallery.", tables=(table,))


def thresholds(results: Sequence[Result]) -> Section:
    """Operating points, and the curves that they are on."""
    plots: list[Plot] = []
    tables: list[ReportTable] = []
    notes: list[str] = []
    for result in results:
        if isinstance(result, EvalResult):
            rows: Sequence[ParityRowRecord | EvalResult] = (result,)
            notes += [f"{result.artifact}: {warning}" for warning in result.warnings]
        elif isinstance(result, ParityResult):
            rows = result.all_rows
        else:
            continue
        marks = [
            Mark(i % (NUM_SERIES - 1), line=DASHES[i % len(DASHES)]) if i else Mark(NUM_SERIES - 1, line="-")
            for i in range(len(rows))
        ]
        key = _operating_points(result, rows, marks)
        curves = [
            (mark, row.roc)
            for mark, row in zip(marks, rows, strict=True)
            if row.roc is not None and max(row.roc.fpr, default=0) > 0
        ]
        if curves:
            below = "; below, each minus the first, which is drawn broad" if len(curves) > 1 else ""
            caption = f"{result.dataset}. Above, the curves{below}."
            plots.append(Plot(roc_curves(f"roc-{len(plots)}", curves), caption, key))
        elif key.columns[1:]:
            tables.append(key)
    lead = (
        "Two images are taken for one person when their distance is at most the threshold. False positives are pairs "
        "of different people that pass, true positives pairs of one person that do."
    )
    return Section("Distance thresholds", lead, tuple(notes), tuple(plots), tuple(tables))


def _operating_points(
    result: ParityResult | EvalResult, rows: Sequence[ParityRowRecord | EvalResult], marks: Sequence[Mark]
) -> ReportTable:
    pairs = {point.fpr: point.num_false for row in reversed(rows) for point in row.operating_points}
    rates = sorted(pairs, reverse=True)
    cells = []
    for mark, row in zip(marks, rows, strict=True):
        found = {point.fpr: point for point in row.operating_points}
        figures = [
            lines(percent(point.tpr), NONE if point.threshold is None else f"{point.threshold:.4f}")
            if (point := found.get(rate))
            else NONE
            for rate in rates
        ]
        name = row.artifact if isinstance(row, EvalResult) else _name(row)
        cells.append((marked(mark, name), *figures))
    heads = [
        lines(f"at {100 * rate:g} %", None if pairs[rate] is None else f"{count(pairs[rate])} pairs")
        for rate in rates
    ]
    caption = f"True positives in per cent, and the {result.metric} distance, at each rate of false positives"
    return ReportTable(caption, source(result), ("artifact", *heads), cells)


def precisions(results: Sequence[Result]) -> Section:
    """How many layers compute in which precision, and what that costs."""
    tables = [_layers_of_artifacts(result) for result in of_type(results, ParityResult)]
    tables += [_layers_of_precisions(result) for result in of_type(results, PrecisionsResult)]
    lead = "How many layers compute in which number format, as the file itself says."
    return Section("Precision of layers", lead, tables=tuple(tables))


def _layers_of_artifacts(result: ParityResult) -> ReportTable:
    rows = [
        (row.artifact, _size(row.size_mib), _layers(row.layer_precisions))
        for row in result.rows
        if row.layer_precisions
    ]
    columns = ("artifact", *_LAYER_HEADS)
    return ReportTable(
        "Layers of each artifact", source(result), columns, list(dict.fromkeys(rows)), ("layers",)
    )


def _layers_of_precisions(result: PrecisionsResult) -> ReportTable:
    has_scores = any(each.mAP is not None for each in result.precisions)
    rows = [
        (
            *(each.name, _size(each.size_mib), _layers(each.layer_precisions)),
            *((percent(each.rank1), percent(each.mAP), *_drops(each.drops)) if has_scores else ()),
        )
        for each in result.precisions
    ]
    scores = ("rank-1\n%", "mAP\n%", *_DROP_HEADS) if has_scores else ()
    columns = ("precision", *_LAYER_HEADS, *scores)
    return ReportTable(result.architecture, source(result), columns, rows, ("layers",))


def _layers(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items(), key=lambda item: -item[1]))


def _size(mib: float | None) -> str:
    return NONE if mib is None else f"{mib:.2f}"
