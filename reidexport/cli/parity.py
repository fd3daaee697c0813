"""``reidexport parity``: all artifacts on all backends in one table."""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from reidruntime.artifact.manifest import Feature, Metric
from reidruntime.backends import backend_places
from reidruntime.session import SessionOptions
from typer import Argument, Option

from reidexport.cli.option_groups import with_option_groups
from reidexport.cli.output import SAME_CAMERA_TEXTS, ForceOption, log, text_table
from reidexport.cli.shared_options import (
    CamerasOption,
    CheckpointOptions,
    DataOptions,
    DepthOption,
    ForeignOptions,
    PixelOptions,
    ThreadsOption,
    UnknownCameraOption,
)
from reidexport.errors import InputError
from reidexport.files import check_replaceable
from reidexport.progress import progress_bar
from reidexport.records.accuracy import ParityRow, ParityTable
from reidexport.records.reading import check_record_file, write_record

_NAME_WIDTH = 28
_WIDTH = 110


@dataclass(frozen=True)
class ParityOptions:
    """What runs the artifacts, and how their features are compared."""

    backend: Annotated[
        list[str] | None,
        Option(
            metavar="NAME",
            help=f"What runs the artifacts: {', '.join(backend_places())}; may be repeated. If left out, all that load "
            "the artifact, in its own precision, on a device that is here.",
        ),
    ] = None
    metric: Annotated[Metric | None, Option(help="Distance; the reference's if left out.")] = None
    feature: Annotated[
        Feature | None,
        Option(help="What artifacts without a manifest emit; if left out, what the reference emits."),
    ] = None
    threads: ThreadsOption = None
    depth: DepthOption = "refuse"
    cameras: CamerasOption = None
    unknown_camera: UnknownCameraOption = "refuse"


@dataclass(frozen=True)
class TableOptions:
    """Where the table is kept."""

    json_file: Annotated[
        Path | None,
        Option(
            "--json",
            metavar="FILE",
            callback=check_record_file,
            help="Keep the table in FILE, row by row as it grows.",
        ),
    ] = None
    resume: Annotated[bool, Option("--resume", help="Continue the table in --json FILE, if it exists.")] = (
        False
    )
    force: ForceOption = False


@with_option_groups
def parity(
    reference: Annotated[
        Path, Argument(metavar="REFERENCE", help="The checkpoint or artifact to answer like.")
    ],
    artifacts: Annotated[list[Path], Argument(metavar="ARTIFACT", help="ONNX files and TensorRT engines.")],
    *,
    data: DataOptions,
    compared: ParityOptions,
    foreign: ForeignOptions,
    checkpoint: CheckpointOptions,
    kept: TableOptions,
) -> None:
    """Compare artifacts with their reference on a data set, on every backend that can run them."""
    from reidexport.evaluation.opening import is_foreign, open_reference
    from reidexport.evaluation.parity import measure_parity, parity_from_json, tasks_from_artifacts

    json_file = kept.json_file
    if kept.resume and json_file is None:
        raise InputError("--resume continues a table in a file: pass --json FILE too.")
    if json_file:
        check_replaceable(json_file, force=kept.force or kept.resume)
    finished = parity_from_json(json_file) if kept.resume and json_file and json_file.is_file() else None
    manifests = foreign.manifests([*artifacts, reference])
    options = SessionOptions(
        threads=compared.threads, depth=compared.depth, unknown_camera=compared.unknown_camera
    )
    tasks = tasks_from_artifacts(
        artifacts,
        compared.backend or [],
        manifests=manifests,
        options=options,
        cameras=compared.cameras,
    )
    records = data.load()
    # What a file of this project records of its network says more than what is stated of others.
    recorded = min(
        (task.manifest for task in tasks), key=lambda each: (is_foreign(each), not each.adaptation)
    )
    with open_reference(
        reference,
        recorded,
        choices=checkpoint.choices(PixelOptions()),
        feature=compared.feature,
        manifest=manifests.get(reference),
        cameras=compared.cameras,
        on_checkpoint=lambda original: log("\n".join(f"reference: {line}" for line in original.fact_lines)),
        options=options,
    ) as session:
        result = measure_parity(
            session,
            reference,
            tasks,
            records,
            metric=compared.metric,
            finished=finished,
            keep=lambda table: write_record(json_file, table),
            progress_bar=progress_bar,
        )
    _print(result)
    if not result.rows:
        raise InputError("None of the artifacts could be run; the reasons are above.")


def _print(table: ParityTable) -> None:
    rows = table.all_rows
    print(f"data set {table.dataset}, metric {table.metric}; drops from the reference in percentage points")
    print(SAME_CAMERA_TEXTS[table.same_camera])
    names = ["rank-1", "rank-5", "rank-10", "mAP", "mINP", "rank-1 drop", "mAP drop"]
    _print_grid(names, [(row, _scores(row)) for row in rows])
    names = ["min cosine", "mean cosine", "p50 ms at batch 1", "images/s", "MiB"]
    _print_grid(names, [(row, _features_and_speed(row)) for row in rows])
    names = [f"TPR at FPR {point.fpr:g}" for point in table.reference.operating_points]
    _print_grid(names, [(row, [f"{100 * point.tpr:.2f}" for point in row.operating_points]) for row in rows])
    names = [f"max at FPR {point.fpr:g}" for point in table.reference.operating_points]
    # Fewer digits could round up, and let impostors pass.
    _print_grid(names, [(row, [f"{point.threshold:.9g}" for point in row.operating_points]) for row in rows])
    print("  max: the threshold, the largest distance to pass, as in `reidexport search` but for rounding")
    losers = []
    for row in table.rows:
        for worst in row.worst_queries[:1]:
            ranks = f"{worst.reference_rank} -> {worst.candidate_rank}"
            losers.append((row, [_short(Path(worst.image).name), ranks, f"{worst.ap_drop:+z.2f}"]))
    if losers:
        _print_grid(["query that lost most AP", "first match at", "AP drop"], losers)
    if table.not_run:
        print()
    for item in table.not_run:
        line = f"not run: {_short(Path(item.artifact).name)}, {item.backend}: {item.reason}"
        print(textwrap.fill(line, _WIDTH, subsequent_indent="  ", break_on_hyphens=False))
    for warning in dict.fromkeys(warning for row in rows for warning in row.warnings):
        log(f"warning: {warning}")
    if table.is_busy:
        log("warning: The machine was busy before the measurement: speeds are doubtful.")


def _print_grid(names: list[str], rows: list[tuple[ParityRow, list[str]]]) -> None:
    lines = [[_short(Path(row.artifact).name), row.backend, row.precision, *cells] for row, cells in rows]
    print(f"\n{text_table([['', '', '', *names], *lines], num_names=3)}")


def _scores(row: ParityRow) -> list[str]:
    shares = [f"{100 * value:.2f}" for value in (row.rank1, row.rank5, row.rank10, row.mAP, row.mINP)]
    return shares + [f"{row.drops[name]:+z.2f}" if row.drops else "" for name in ("rank1", "mAP")]


def _features_and_speed(row: ParityRow) -> list[str]:
    return [
        f"{row.min_cosine:.6f}",
        f"{row.mean_cosine:.6f}",
        f"{row.p50_batch1_ms:.2f}",
        f"{row.images_per_s:.1f}",
        f"{row.size_mib:.2f}",
    ]


def _short(name: str) -> str:
    """A name that leaves room for the table, its middle left out."""
    half = (_NAME_WIDTH - 1) // 2
    return name if len(name) <= _NAME_WIDTH else f"{name[:half]}…{name[-half:]}"
