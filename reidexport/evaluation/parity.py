"""Every artifact on every backend in one table: what each loses against a reference, and how fast it is.

:mod:`reidexport.evaluation.verification` judges one artifact; this only measures, and leaves nothing out: what
cannot run is listed in the table with the reason.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import commonpath
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import numpy as np
from reidruntime.artifact.camera_profile import manifest_with_profile, read_camera_profile
from reidruntime.artifact.manifest import Manifest, Metric, file_sha256
from reidruntime.artifact.onnx_metadata import read_onnx
from reidruntime.backends import BACKENDS, backend_places
from reidruntime.session import DEFAULT_OPTIONS, Session, SessionOptions, open_session
from reidruntime.tensorrt_library import first_gpu

from reidexport.checkpoint.reid_folder import weights_file
from reidexport.data.records import Dataset
from reidexport.errors import GpuError, InputError, NotInstalledError
from reidexport.evaluation.opening import exported_manifest, kind_of
from reidexport.evaluation.protocol import check_scorable
from reidexport.evaluation.scoring import Evaluation, evaluate
from reidexport.evaluation.timing import bench_session
from reidexport.machine import is_busy
from reidexport.metrics.agreement import agreement, check_comparable
from reidexport.progress import ProgressBar, no_progress_bar
from reidexport.records.accuracy import NotRun, ParityRow, ParityTable, WorstQuery
from reidexport.records.base import here
from reidexport.records.reading import read_record

NUM_WORST = 5
_LATENCY_SECONDS = 2.0
_MOMENTARY = ("cpu_mhz", "load_average")  # what changes of a machine that stays the same

AnyRow = TypeVar("AnyRow", ParityRow, NotRun)


@dataclass(frozen=True)
class Task:
    """An artifact to be run by a backend, named as :func:`reidruntime.backends.backend_places` does."""

    artifact: Path
    manifest: Manifest
    backend: str
    options: SessionOptions = DEFAULT_OPTIONS
    cameras: Path | None = None

    @property
    def features_sha256(self) -> str:
        """Of the manifest, with the camera profile that changes its features."""
        if self.cameras is None:
            return self.manifest.sha256
        profile = read_camera_profile(self.cameras, self.artifact, self.manifest)
        return manifest_with_profile(self.manifest, profile).sha256

    def is_done_by(self, row: ParityRow) -> bool:
        """Whether a row is this artifact, unchanged, on this backend."""
        return self.is_place_of(row) and (row.manifest_sha256, row.artifact_sha256) == (
            self.features_sha256,
            _artifact_sha256(self.artifact),
        )

    def is_place_of(self, row: ParityRow | NotRun) -> bool:
        """Whether a row is this file, perhaps in an older version, on this backend."""
        return (row.artifact, row.backend) == (str(self.artifact), self.backend)


def tasks_from_artifacts(
    artifacts: Sequence[Path],
    backends: Sequence[str] = (),
    *,
    manifests: Mapping[Path, Manifest] = MappingProxyType({}),
    options: SessionOptions = DEFAULT_OPTIONS,
    cameras: Path | None = None,
) -> tuple[Task, ...]:
    """Pair every artifact with the backends that are to run it.

    Args:
        artifacts: ONNX files and engines, each once.
        backends: those to use, as :func:`reidruntime.backends.backend_places` names them; default: all that load the
            artifact, in its own precision, on a device that is here.
        manifests: the facts about those ONNX files that carry none.
        options: of every session; backend and device are those of the task.
        cameras: a camera profile that belongs to all of them.

    Raises:
        ArtifactError: a file is missing, or neither an ONNX file with a manifest nor an engine with one beside it,
            and its facts are not given.
        InputError: there is no artifact, or one is named twice; or there is no such backend.
    """
    places = backend_places()
    if unknown := [name for name in backends if name not in places]:
        raise InputError(f"There is no backend {unknown[0]!r}. Expected one of {', '.join(places)}.")
    if not artifacts or len(set(artifacts)) < len(artifacts):
        raise InputError(f"Expected artifacts, each once, got {', '.join(map(str, artifacts)) or 'none'}.")
    tasks = []
    for artifact in artifacts:
        manifest = manifests.get(artifact) or exported_manifest(
            artifact, "State its facts: --size --mean --std."
        )
        chosen = backends or _default_backends("engine" if manifest.engine else "onnx")
        tasks += [Task(artifact, manifest, backend, options, cameras) for backend in dict.fromkeys(chosen)]
    return tuple(tasks)


def _default_backends(kind: Literal["onnx", "engine"]) -> list[str]:
    """All that load such a file, on devices that are here; an engine's even without one, which the table then says."""
    devices = ("cpu", "cuda") if kind == "engine" or first_gpu() else ("cpu",)
    return [
        place
        for wanted in devices
        for place, (name, device) in backend_places().items()
        if device == wanted and BACKENDS[name].loads == kind and BACKENDS[name].computes_in is None
    ]


def measure_parity(
    reference: Session,
    reference_file: Path,
    tasks: Sequence[Task],
    dataset: Dataset,
    *,
    metric: Metric | None = None,
    finished: ParityTable | None = None,
    keep: Callable[[ParityTable], None] = lambda _: None,
    progress_bar: ProgressBar = no_progress_bar,
) -> ParityTable:
    """Measure a reference, and every task against it.

    Args:
        reference: what the artifacts must answer like, opened.
        reference_file: where it was opened from.
        tasks: from :func:`tasks_from_artifacts`.
        dataset: every row embeds its queries and its gallery.
        metric: of ranks and thresholds; default: the reference's.
        finished: an earlier table to continue; of its tasks only those with a changed artifact are run again.
        keep: called with the table so far after the reference and after every task.
        progress_bar: shown for each of them.

    Raises:
        InputError: features of another kind or number of values than the reference's, or not finite ones; or
            ``finished`` is of another reference, data set, metric, choice of cameras, machine or version.
        DatasetError: the data set cannot be scored.
        ImageError: an image cannot be read.
    """
    check_scorable(dataset)
    metric = metric or reference.manifest.metric
    for task in tasks:
        check_comparable(str(task.artifact), task.manifest, reference.manifest)
    about = {"dataset": dataset.name, "metric": metric, "same_camera": dataset.same_camera, **here()}
    if finished:
        before = finished.reference.manifest_sha256, finished.reference.artifact_sha256
        now = reference.manifest.sha256, _artifact_sha256(reference_file)
        _check_same(_facts(*before, dict(finished)), _facts(*now, about))
    pending = [task for task in tasks if not (finished and any(map(task.is_done_by, finished.rows)))]
    if finished and not pending:
        return finished
    row, expected = _measured(
        reference, reference_file, reference.backend, dataset, metric, None, progress_bar
    )
    table = ParityTable(
        reference=row,
        rows=_without(pending, finished.rows if finished else ()),
        not_run=_without(pending, finished.not_run if finished else ()),
        is_busy=is_busy(about["machine"]) or (finished is not None and finished.is_busy),
        **about,
    )
    keep(table)
    for task in pending:
        answer = _run(task, dataset, metric, expected, progress_bar)
        where = "rows" if isinstance(answer, ParityRow) else "not_run"
        table = table.model_copy(update={where: (*getattr(table, where), answer)})
        keep(table)
    return table


def parity_from_json(path: Path) -> ParityTable:
    """Read the table that ``reidexport parity --json`` keeps.

    Raises:
        InputError: the file holds something else.
    """
    try:
        record = read_record(path)
    except InputError as error:
        raise InputError(f"{error} Or start anew without --resume.") from error
    if not isinstance(record, ParityTable):
        raise InputError(
            f"{path}: not a table of parity, but of the kind {record.kind}. Choose another FILE."
        )
    return record


def _without(pending: list[Task], earlier: tuple[AnyRow, ...]) -> tuple[AnyRow, ...]:
    """The rows of an earlier table that no task replaces."""
    return tuple(row for row in earlier if not any(task.is_place_of(row) for task in pending))


def _artifact_sha256(path: Path) -> str:
    """Of a file; with those beside it in which an ONNX file keeps its weights."""
    own = file_sha256(weights_file(path))
    external = sorted(read_onnx(path).external) if kind_of(path) == "onnx" else []
    if not external:
        return own
    every = [own, *(file_sha256(path.parent / location) for location in external)]
    return hashlib.sha256("".join(every).encode()).hexdigest()


def _facts(manifest_sha256: str, artifact_sha256: str | None, about: Mapping[str, Any]) -> dict[str, Any]:
    """What all rows of a table have in common, by what a message calls it."""
    return {
        "reference": manifest_sha256[:12],
        "reference file": (artifact_sha256 or "not known")[:12],
        "data set": about["dataset"],
        "metric": about["metric"],
        "choice of the same camera": about["same_camera"],
        **{name: fact for name, fact in about["machine"].items() if name not in _MOMENTARY},
        **about["versions"],
    }


def _check_same(before: dict[str, Any], now: dict[str, Any]) -> None:
    for what in before | now:
        if before.get(what) != now.get(what):
            raise InputError(
                f"The table to continue has another {what}: {before.get(what)}, now {now.get(what)}. "
                "Choose another --json FILE, or start anew with --force."
            )


def _run(
    task: Task, dataset: Dataset, metric: Metric, expected: Evaluation, progress_bar: ProgressBar
) -> ParityRow | NotRun:
    backend, device = backend_places()[task.backend]
    try:
        options = replace(task.options, backend=backend, device=device)
        with open_session(task.artifact, options, manifest=task.manifest, cameras=task.cameras) as session:
            row, _ = _measured(session, task.artifact, task.backend, dataset, metric, expected, progress_bar)
    except (InputError, NotInstalledError, GpuError) as error:
        return NotRun(artifact=str(task.artifact), backend=task.backend, reason=str(error))
    return row


def _measured(
    session: Session,
    file: Path,
    backend: str,
    dataset: Dataset,
    metric: Metric,
    expected: Evaluation | None,
    progress_bar: ProgressBar,
) -> tuple[ParityRow, Evaluation]:
    """A row of the table, or the reference's, which is compared with nothing; and what it is made of."""
    latency = bench_session(session, (1,), seconds_per_batch=_LATENCY_SECONDS).batches[0].p50_ms
    title = f"{file.name}, {backend if expected else 'reference'}"
    num_images = len(dataset.query) + len(dataset.scored_gallery)
    with progress_bar(title, num_images) as progress:
        evaluation = evaluate(session, dataset, metric=metric, progress=progress)
    cosines = agreement(evaluation.feats, expected.feats).cosines if expected else np.ones(1)
    ranks, roc = evaluation.metrics.ranks, evaluation.roc()
    wanted = expected.metrics.ranks if expected else None
    row = ParityRow(
        artifact=str(file),
        artifact_sha256=_artifact_sha256(file),
        manifest_sha256=evaluation.manifest.sha256,
        backend=backend,
        precision=session.precision,
        runtime=evaluation.runtime,
        size_mib=round(file.stat().st_size / 2**20, 2),
        layer_precisions=evaluation.manifest.layer_precisions,
        **dict(ranks),
        drops=ranks.drops_from(wanted) if wanted else {},
        min_cosine=float(cosines.min()),
        mean_cosine=float(cosines.mean()),
        worst_queries=_worst_queries(evaluation, expected) if expected else (),
        p50_batch1_ms=latency,
        images_per_s=num_images / evaluation.embedding_seconds,
        **roc.as_json() | {"warnings": [*evaluation.warnings, *roc.warnings]},
    )
    return row, evaluation


def _worst_queries(found: Evaluation, expected: Evaluation) -> tuple[WorstQuery, ...]:
    drops = np.nan_to_num(expected.metrics.average_precisions - found.metrics.average_precisions)
    worst = [i for i in np.argsort(-drops, kind="stable")[:NUM_WORST] if drops[i] > 0]
    folder = commonpath([record.path.parent for record in (*found.query, *found.gallery)])
    return tuple(
        WorstQuery(
            image=found.query[i].path.relative_to(folder).as_posix(),
            reference_rank=int(expected.metrics.first_match_ranks[i]),
            candidate_rank=int(found.metrics.first_match_ranks[i]),
            ap_drop=float(100 * drops[i]),
        )
        for i in worst
    )
