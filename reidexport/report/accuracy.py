"""Sections about answers: accuracy, what each artifact lost, thresholds, and the precision of layers."""

from collections.abc import Sequence

from reidexport.report.blocks import NONE, Plot, Section, Table, milliseconds, percent, points, source, speed
from reidexport.report.plots import Dot, accuracy_against_latency, roc_curves
from reidexport.report.results import (
    EvalResult,
    ParityResult,
    ParityRow,
    Precision,
    PrecisionsResult,
    Result,
    VerifyResult,
)


def row_label(row: ParityRow) -> str:
    """How a plot or a table calls an artifact: its precision and what runs it."""
    return f"{row.precision} · {row.backend}"


def all_rows(result: ParityResult) -> tuple[ParityRow, ...]:
    """The reference, then the artifacts."""
    return (result.reference, *result.rows)


def labels_of(result: ParityResult) -> list[str]:
    """A label for each of ``all_rows``, with the file's name where two would be the same."""
    rows = all_rows(result)
    short = [row_label(row) for row in rows]
    return [
        f"{label} · {row.artifact}" if short.count(label) > 1 else label
        for label, row in zip(short, rows, strict=True)
    ]


def trade_off(results: Sequence[Result]) -> Section | None:
    """Accuracy against latency."""
    plots: list[Plot] = []
    for result in _parities(results):
        dots = [
            Dot(label, row.p50_batch1_ms, row.mAP, row is result.reference)
            for label, row in zip(labels_of(result), all_rows(result), strict=True)
            if row.p50_batch1_ms is not None
        ]
        if dots:
            caption = f"{result.dataset}, {result.metric} distance ({source(result, results)})."
            plots.append(Plot(accuracy_against_latency(f"accuracy-{len(plots)}", dots), caption))
    if not plots:
        return None
    lead = "Up and to the left is better; the hollow mark is the reference. The vertical axis is cut: read its figures."
    return Section("Accuracy against latency", lead, plots=tuple(plots))


def parity(results: Sequence[Result]) -> Section | None:
    """What each artifact lost against the reference, and the queries that lost most."""
    found = _parities(results)
    if not found:
        return None
    tables, notes = [], []
    for result in found:
        tables += [_parity_table(result, results), *_worst_queries(result, results)]
        notes += [f"{row.artifact}: {warning}" for row in all_rows(result) for warning in row.warnings]
        notes += [f"{each.artifact} on {each.backend}: not run: {each.reason}" for each in result.not_run]
        if result.is_busy:
            notes.append(f"{result.file}: the machine was busy with something else: its speeds are doubtful.")
    lead = (
        "Accuracies in per cent; drops in percentage points, reference minus artifact: positive is a loss. "
        "Cosines are of each image's feature with the reference's."
    )
    return Section("Parity with the reference", lead, tuple(notes), tables=tuple(tables))


def _parity_table(result: ParityResult, results: Sequence[Result]) -> Table:
    rows = [
        (
            row.artifact,
            row.precision,
            row.backend,
            *(percent(value) for value in (row.rank1, row.mAP, row.mINP)),
            *(points(row.drops.get(key)) for key in ("rank1", "mAP")),
            f"{row.min_cosine:.6f}",
            milliseconds(row.p50_batch1_ms),
            speed(row.images_per_s),
        )
        for row in all_rows(result)
    ]
    return Table(
        f"Artifacts on {result.dataset}; the first is the reference",
        source(result, results),
        (
            *("artifact", "precision", "backend", "rank-1", "mAP", "mINP", "rank-1 drop", "mAP drop"),
            *("lowest cosine", "p50 ms", "images/s"),
        ),
        rows,
        ("precision", "backend"),
    )


def _worst_queries(result: ParityResult, results: Sequence[Result]) -> list[Table]:
    rows = [
        (
            worst.image,
            row_label(row),
            NONE if worst.reference_rank is None else str(worst.reference_rank),
            NONE if worst.candidate_rank is None else str(worst.candidate_rank),
            points(worst.ap_drop),
        )
        for row in result.rows
        for worst in row.worst_queries
    ]
    if not rows:
        return []
    columns = ("query", "artifact", "rank in reference", "rank here", "AP drop")
    caption = "Queries that lost most: the rank of their first match, and their average precision"
    return [Table(caption, source(result, results), columns, rows, ("artifact",))]


def verification(results: Sequence[Result]) -> Section | None:
    """The verdicts of ``reidexport verify``."""
    found = [result for result in results if isinstance(result, VerifyResult)]
    if not found:
        return None
    rows = [
        (
            result.artifact,
            "✓ passed" if result.passed else "✗ FAILED",
            f"{result.num_images}",
            f"{result.min_cosine:.6f}",
            f"{result.max_relative_l2:.1e}",
            *(points((result.drops or {}).get(key)) for key in ("rank1", "mAP")),
            percent(result.top1_agreement),
            source(result, results),
        )
        for result in found
    ]
    columns = (
        *("artifact", "verdict", "images", "lowest cosine", "largest relative L2", "rank-1 drop", "mAP drop"),
        *("same nearest, %", "file"),
    )
    table = Table("Each artifact against its checkpoint", "", columns, rows, ("verdict", "file"))
    failures = tuple(f"{result.artifact}: {failure}" for result in found for failure in result.failures)
    return Section(
        "Verification", "Drops in percentage points: positive is a loss.", failures, tables=(table,)
    )


def evaluations(results: Sequence[Result]) -> Section | None:
    """The scores of ``reidexport eval``."""
    found = [result for result in results if isinstance(result, EvalResult)]
    if not found:
        return None
    rows = [
        (
            result.artifact,
            result.dataset,
            result.metric + (", re-ranked" if result.rerank else ""),
            *(
                percent(value)
                for value in (result.rank1, result.rank5, result.rank10, result.mAP, result.mINP)
            ),
            source(result, results),
        )
        for result in found
    ]
    columns = ("artifact", "data set", "distance", "rank-1", "rank-5", "rank-10", "mAP", "mINP", "file")
    table = Table("Scores in per cent", "", columns, rows, ("data set", "distance", "file"))
    return Section("Accuracy", "Every query against the whole gallery.", tables=(table,))


def thresholds(results: Sequence[Result]) -> Section | None:
    """Operating points and the curves they lie on."""
    plots: list[Plot] = []
    tables: list[Table] = []
    for result in _parities(results):
        labels = labels_of(result)
        labelled = list(zip(labels, all_rows(result), strict=True))
        curves = {label: (row.roc.fpr, row.roc.tpr) for label, row in labelled if row.roc is not None}
        if curves:
            plots.append(Plot(roc_curves(f"roc-{len(plots)}", curves), f"{source(result, results)}."))
        rows = [
            (
                label,
                f"{100 * point.fpr:g} %",
                "" if point.num_false is None else str(point.num_false),
                percent(point.tpr),
                NONE if point.threshold is None else f"{point.threshold:.4f}",
            )
            for label, row in labelled
            for point in row.operating_points
        ]
        if rows:
            columns = ("artifact", "false positives allowed", "pairs", "found, %", "threshold")
            caption = f"Thresholds on the {result.metric} distance"
            tables.append(Table(caption, source(result, results), columns, rows))
    if not plots and not tables:
        return None
    lead = (
        "Two images are taken for one person when their distance is at most the threshold. Allowed is the share of "
        "pairs of different people that may pass, found the share of pairs of one person that then do."
    )
    return Section("Thresholds for verification", lead, plots=tuple(plots), tables=tuple(tables))


def precisions(results: Sequence[Result]) -> Section | None:
    """How many layers compute in which precision, and what that costs."""
    columns = ("precision", "size, MiB", "layers", "rank-1", "mAP", "rank-1 drop", "mAP drop")
    tables = []
    for parity_result in _parities(results):
        rows = [
            (label, _size(row.size_mib), _layers(row.layer_precisions), *_scores(row))
            for label, row in zip(labels_of(parity_result), all_rows(parity_result), strict=True)
            if row.layer_precisions
        ]
        if rows:
            caption = f"Layers of each artifact, {parity_result.dataset}"
            tables.append(Table(caption, source(parity_result, results), columns, rows, ("layers",)))
    for result in results:
        if isinstance(result, PrecisionsResult):
            lines = [
                (each.name, _size(each.size_mib), _layers(each.layer_precisions), *_scores(each))
                for each in result.precisions
            ]
            tables.append(Table(result.architecture, source(result, results), columns, lines, ("layers",)))
    if not tables:
        return None
    lead = (
        "How many layers compute in which number format, as the file itself says. Drops in percentage points."
    )
    return Section("Precision of layers", lead, tables=tuple(tables))


def _scores(row: ParityRow | Precision) -> tuple[str, ...]:
    drops = (points(row.drops.get(key)) for key in ("rank1", "mAP"))
    return (percent(row.rank1), percent(row.mAP), *drops)


def _layers(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def _size(mib: float | None) -> str:
    return NONE if mib is None else f"{mib:.2f}"


def _parities(results: Sequence[Result]) -> list[ParityResult]:
    return [result for result in results if isinstance(result, ParityResult)]
