"""Sections about answers: accuracy, what each artifact lost, thresholds, and the precision of layers."""

from collections.abc import Iterator, Mapping, Sequence

from reidexport.records.accuracy import EvaluationRecord, ParityRow, ParityTable, Verification
from reidexport.records.speed import PrecisionsRecord
from reidexport.report.blocks import Plot, ReportTable, Section, busy, by_artifact, lines, marked, source
from reidexport.report.marks import DASHES, NUM_SERIES, SHAPES, Mark
from reidexport.report.plots import Dot, accuracy_against_latency, roc_curves
from reidexport.report.results import Result, Results, of_type
from reidexport.report.units import NONE, count, digits, percent, points

_NUM_WORST = 10
_LEAST_DROP_POINTS = 0.005  # less is written as 0.00


def trade_off(results: Results) -> Section:
    """Accuracy against latency."""
    found = of_type(results, ParityTable)
    plots: list[Plot] = []
    for result in found:
        table = result.record
        precisions = list(dict.fromkeys(row.precision for row in table.all_rows))
        dots, rows = [], []
        for number, row in enumerate(table.all_rows, 1):
            i = precisions.index(row.precision)
            mark = Mark(i, SHAPES[i % len(SHAPES)], is_hollow=row is table.reference)
            dots.append(Dot(str(number), row.p50_batch1_ms, row.mAP, mark))
            rows.append({
                "artifact": marked(mark, _name(row), str(number)),
                "median latency\nms": digits(row.p50_batch1_ms),
                "mAP\n%": percent(row.mAP),
            })  # fmt: skip
        svg = accuracy_against_latency(f"accuracy-{len(plots)}", dots)
        kept = ", same camera kept" if table.same_camera == "keep" else ""
        caption = f"{table.dataset}{kept}, {table.metric} distance, one image at a time."
        plots.append(Plot(svg, caption, ReportTable("The numbers in the plot", rows, source(result))))
    lead = (
        "Up and to the left is better. Colors and shapes are precisions, the hollow mark is the reference. "
        "The vertical axis does not begin at 0: read its figures."
    )
    return Section("Accuracy against latency", lead, busy(found), plots)


def parity(results: Results) -> Section:
    """What each artifact lost against the reference, and the queries that lost most."""
    tables: list[ReportTable] = []
    notes: list[str] = []
    for result in of_type(results, ParityTable):
        tables += [_parity_table(result), _worst_queries(result)]
        notes += busy([result])
        notes += [f"{row.artifact}: {warning}" for row in result.record.all_rows for warning in row.warnings]
        notes += [
            f"{each.artifact} on {each.backend}: not run: {each.reason.removeprefix(f'{each.artifact}: ')}"
            for each in result.record.not_run
        ]
    lead = (
        "Drops are in percentage points, reference minus artifact: positive is a loss. Cosines are of each image's "
        "feature with the reference's. Images/s are from files to features, during the evaluation."
    )
    return Section("Parity with the reference", lead, notes, tables=tables)


def _name(row: ParityRow) -> str:
    return lines(row.artifact, runs_in(row))


def runs_in(row: ParityRow) -> str:
    """What an artifact computes in, and what runs it."""
    return f"{row.precision} · {row.backend}"


def _parity_table(result: Result[ParityTable]) -> ReportTable:
    rows = [
        {
            "artifact": _name(row),
            "rank-1\n%": percent(row.rank1),
            "mAP\n%": percent(row.mAP),
            "mINP\n%": percent(row.mINP),
            **_drops(row.drops),
            "lowest cosine": f"{row.min_cosine:.6f}",
            "median latency\nms, batch 1": digits(row.p50_batch1_ms),
            "images/s": digits(row.images_per_s),
        }
        for row in result.record.all_rows
    ]
    caption = f"Artifacts on {result.record.dataset}; the first is the reference"
    return ReportTable(caption, rows, source(result))


def _drops(drops: Mapping[str, float]) -> dict[str, str]:
    return {
        "rank-1 drop\npoints": points(drops.get("rank1")),
        "mAP drop\npoints": points(drops.get("mAP")),
    }


def _worst_queries(result: Result[ParityTable]) -> ReportTable:
    lost = [
        (worst, row)
        for row in result.record.rows
        for worst in row.worst_queries
        if worst.ap_drop >= _LEAST_DROP_POINTS
    ]
    lost.sort(key=lambda each: -each[0].ap_drop)
    rows = [
        {
            "query": worst.image,
            "artifact": _name(row),
            "first match\nreference": count(worst.reference_rank),
            "first match\nartifact": count(worst.candidate_rank),
            "AP drop\npoints": points(worst.ap_drop),
        }
        for worst, row in lost[:_NUM_WORST]
    ]
    caption = "Queries that lost most: the rank of their first match, and their average precision (AP)"
    if len(lost) > _NUM_WORST:
        caption += f"; {_NUM_WORST} of the {len(lost)} in the file"
    return ReportTable(caption, rows, source(result), ("artifact",))


def verification(results: Results) -> Section:
    """The verdicts of ``reidexport verify``."""
    found = of_type(results, Verification)
    caption = "Each artifact's features beside its checkpoint's"
    table = by_artifact(caption, found, _verdict, text_columns=("verdict",))
    notes = [
        f"{each.record.artifact}: {note}"
        for each in found
        for note in (*each.record.failures, *each.record.causes, *each.record.warnings)
    ]
    lead = "The gate of reidexport verify, image by image. Drops in percentage points: positive is a loss."
    return Section("Verified against the checkpoint", lead, notes, tables=[table])


def _verdict(verified: Verification) -> Iterator[dict[str, str]]:
    yield {
        "verdict": "✓ passed" if verified.passed else "✗ FAILED",
        "images": count(verified.num_images),
        "lowest cosine": f"{verified.min_cosine:.6f}",
        "largest difference\nrelative L2": f"{verified.max_relative_l2:.1e}",
        **_drops(verified.drops),
        "same nearest image\n% of queries": percent(verified.top1_agreement),
    }


def evaluations(results: Results) -> Section:
    """The scores of ``reidexport eval``."""
    found = of_type(results, EvaluationRecord)
    table = by_artifact("Scores in per cent", found, _scores, text_columns=("data set", "distance"))
    return Section("Accuracy", "Every query against the whole gallery.", tables=[table])


def _scores(scores: EvaluationRecord) -> Iterator[dict[str, str]]:
    yield {
        "data set": scores.dataset + (", same camera kept" if scores.same_camera == "keep" else ""),
        "distance": scores.metric + (", re-ranked" if scores.rerank else ""),
        "rank-1": percent(scores.rank1),
        "rank-5": percent(scores.rank5),
        "rank-10": percent(scores.rank10),
        "mAP": percent(scores.mAP),
        "mINP": percent(scores.mINP),
    }


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
        elif len(key.rows[0]) > 1:
            tables.append(key)
    lead = (
        "Two images are taken for one person when their distance is at most the threshold. False positives are pairs "
        "of different people that pass, true positives pairs of one person that do."
    )
    return Section("Distance thresholds", lead, notes, plots, tables)


def _operating_points(
    metric: str, files: str, rows: Sequence[ParityRow | EvaluationRecord], marks: Sequence[Mark]
) -> ReportTable:
    pairs = {point.fpr: point.num_false for row in reversed(rows) for point in row.operating_points}
    cells: list[dict[str, str]] = []
    for mark, row in zip(marks, rows, strict=True):
        name = row.artifact if isinstance(row, EvaluationRecord) else _name(row)
        cells.append({"artifact": marked(mark, name)})
        found = {point.fpr: point for point in row.operating_points}
        for rate, num_pairs in sorted(pairs.items(), reverse=True):
            heading, point = lines(f"at {100 * rate:g} %", f"{count(num_pairs)} pairs"), found.get(rate)
            cells[-1][heading] = lines(percent(point.tpr), f"{point.threshold:.4f}") if point else NONE
    caption = f"True positives in per cent, and the {metric} distance, at each rate of false positives"
    return ReportTable(caption, cells, files)


def precisions(results: Results) -> Section:
    """How many layers compute in which precision, and what that costs."""
    tables = []
    for of_artifacts in of_type(results, ParityTable):
        rows = [
            {"artifact": row.artifact, **_layers(row.size_mib, row.layer_precisions)}
            for row in of_artifacts.record.rows
            if row.layer_precisions
        ]
        different = [row for i, row in enumerate(rows) if row not in rows[:i]]
        tables.append(ReportTable("Layers of each artifact", different, source(of_artifacts), ("layers",)))
    for result in of_type(results, PrecisionsRecord):
        rows = []
        for each in result.record.precisions:
            rows.append({"precision": each.name, **_layers(each.size_mib, each.layer_precisions)})
            if of := each.scores:
                rows[-1] |= {"rank-1\n%": percent(of.rank1), "mAP\n%": percent(of.mAP), **_drops(of.drops)}
        tables.append(ReportTable(result.record.architecture, rows, source(result), ("layers",)))
    lead = "How many layers compute in which number format, as the file itself says."
    return Section("Precision of layers", lead, tables=tables)


def _layers(size_mib: float, counts: Mapping[str, int]) -> dict[str, str]:
    most_first = sorted(counts.items(), key=lambda item: -item[1])
    return {
        "size\nMiB": f"{size_mib:.2f}",
        "layers": ", ".join(f"{number} {name}" for name, number in most_first),
    }
