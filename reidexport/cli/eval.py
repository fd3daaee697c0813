"""``reidexport eval``: rank-1, mAP and mINP of a checkpoint or an artifact on a data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from reidruntime.artifact.manifest import Feature, Metric
from typer import Argument, Option

from reidexport.cli.option_groups import with_option_groups
from reidexport.cli.output import SAME_CAMERA_TEXTS, JsonOption, log
from reidexport.cli.shared_options import (
    BatchOption,
    CheckpointOptions,
    DataOptions,
    ForeignOptions,
    RunOptions,
    open_stated,
)
from reidexport.errors import InputError
from reidexport.progress import progress_bar
from reidexport.records.accuracy import EvaluationRecord, Ranks
from reidexport.records.reading import write_record

if TYPE_CHECKING:
    from reidexport.metrics.thresholds import VerificationRoc


@dataclass(frozen=True)
class ScoringOptions:
    """How features are compared."""

    metric: Annotated[Metric | None, Option(help="Distance; the artifact's own if left out.")] = None
    rerank: Annotated[bool, Option("--rerank", help="Re-rank by k-reciprocal neighbors.")] = False
    thresholds: Annotated[
        bool, Option("--thresholds", help="Also which distance says 'the same person', at fixed FPRs.")
    ] = False
    batch: BatchOption = None


@with_option_groups
def eval_(
    artifact: Annotated[Path, Argument(metavar="CHECKPOINT|ARTIFACT", help="A checkpoint or an ONNX file.")],
    *,
    data: DataOptions,
    scoring: ScoringOptions,
    feature: Annotated[
        Feature | None, Option(help="Of a checkpoint: after (f_i) or before (f_t) the BNNeck.")
    ] = None,
    checkpoint: CheckpointOptions,
    json_file: JsonOption = None,
    run: RunOptions,
    foreign: ForeignOptions,
) -> None:
    """Measure rank-1, rank-5, rank-10, mAP and mINP on a data set."""
    from reidexport.evaluation.scoring import evaluate

    if scoring.thresholds and scoring.rerank:
        raise InputError(
            "--thresholds are of distances, which a search can compare with; re-ranked ones depend on the "
            "whole gallery. Leave out --rerank."
        )
    records = data.load()
    total = len(records.query) + len(records.scored_gallery)
    with (
        open_stated(artifact, run, checkpoint, foreign, feature=feature) as session,
        progress_bar("embedding", total) as progress,
    ):
        result = evaluate(
            session,
            records,
            metric=scoring.metric,
            rerank=scoring.rerank,
            batch_size=scoring.batch,
            progress=progress,
        )
    roc = result.roc() if scoring.thresholds else None
    record = result.record(str(artifact), roc)
    _print(record)
    if roc:
        _print_thresholds(roc)
    for warning in record.warnings:
        log(f"warning: {warning}")
    write_record(json_file, record)


def _print(record: EvaluationRecord) -> None:
    print(f"artifact  {record.artifact}  ({record.feature}, {record.precision})")
    print(f"runtime   {record.runtime}")
    print(
        f"dataset   {record.dataset}: {record.num_query} queries ({record.num_query_without_match} without a match), "
        f"{record.num_gallery} gallery images ({record.num_distractor} distractors), {record.num_junk} junk left out"
    )
    print(f"metric    {record.metric}{', re-ranked' if record.rerank else ''}")
    print(f"cameras   {SAME_CAMERA_TEXTS[record.same_camera]}")
    print("  ".join(f"{name:>7}" for name in Ranks.model_fields))
    print("  ".join(f"{getattr(record, name):7.2%}" for name in Ranks.model_fields))


def _print_thresholds(roc: "VerificationRoc") -> None:
    print(f"pairs     {roc.num_genuine} of the same person, {roc.num_impostor} impostors")
    print(f"{'FPR':>7}  {'TPR':>7}  {'threshold':>12}  {'false matches':>13}")
    for point in roc.operating_points:
        print(f"{point.fpr:7g}  {point.tpr:7.2%}  {point.threshold:12.9g}  {point.num_false:13d}")
    distance = "1 - cosine" if roc.metric == "cosine" else "the squared Euclidean distance"
    print(f"The same person: {distance} is at most the threshold, as in `reidexport search --threshold`.")
