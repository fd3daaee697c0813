"""One table of artifacts and backends: what is in it, what is not and why, and going on with it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from reidruntime import SessionOptions, open_session
from reidruntime.artifact.manifest import Manifest, file_sha256
from reidruntime.session import Session

from reidexport.cli.parity import _print
from reidexport.cli.shared_options import ForeignOptions
from reidexport.data import Dataset
from reidexport.errors import ArtifactError, InputError
from reidexport.evaluation.opening import open_any
from reidexport.evaluation.parity import Task, measure_parity, parity_from_json, tasks_from_artifacts
from reidexport.evaluation.scoring import evaluate
from reidexport.records.accuracy import ParityRow, ParityTable
from reidexport.records.base import here
from reidexport.records.reading import write_record
from reidexport.records.speed import BenchReport
from tests.conftest import Exported, Run
from tests.standins.camera_profiles import small_profile, write_profile

SCORES = ("rank1", "rank5", "rank10", "mAP", "mINP")


@pytest.fixture(autouse=True)
def short_latencies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency is measured as ever, but briefly."""
    monkeypatch.setattr("reidexport.evaluation.parity._LATENCY_SECONDS", 0.05)


@pytest.fixture(scope="module")
def damaged(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The FP32 file with drawn weights in one of its layers, and its manifest as before."""
    model = onnx.load(exported.onnx)
    weight = next(t for t in model.graph.initializer if t.dims and len(t.dims) == 4 and t.dims[0] == 512)
    drawn = np.random.default_rng(0).normal(0, 0.1, weight.dims).astype("f4")
    weight.CopyFrom(numpy_helper.from_array(drawn, weight.name))
    path = tmp_path_factory.mktemp("damaged") / "damaged.onnx"
    onnx.save(model, path)
    return path


def measure(exported: Exported, artifacts: list[Path], dataset: Dataset, **options: Any) -> ParityTable:
    """``measure_parity`` on ONNX Runtime against the checkpoint."""
    backends = options.pop("backends", ("onnxruntime",))
    with open_any(exported.checkpoint) as reference:
        tasks = tasks_from_artifacts(artifacts, backends)
        return measure_parity(reference, exported.checkpoint, tasks, dataset, **options)


def per_query(feats: NDArray[Any], dataset: Dataset, query: int) -> tuple[float, int]:
    """AP and first-match rank of one query by sorting its gallery."""
    unit = feats / np.linalg.norm(feats, axis=1, keepdims=True)
    record, num_query = dataset.query[query], len(dataset.query)
    distances = 1 - unit[num_query:].astype("f8") @ unit[query].astype("f8")
    ranked = [dataset.scored_gallery[i] for i in np.argsort(distances, kind="stable")]
    ranked = [g for g in ranked if (g.pid, g.camid) != (record.pid, record.camid)]
    hits = [rank for rank, g in enumerate(ranked, start=1) if g.pid == record.pid]
    return float(np.mean([found / rank for found, rank in enumerate(hits, start=1)])), hits[0]


def test_every_artifact_is_measured_on_every_backend(exported: Exported, drawn_dataset: Dataset) -> None:
    """Rows hold the scores of an evaluation, and drops, cosines and speeds, in the order of the tasks."""
    backends = ("onnxruntime", "openvino")
    table = measure(exported, [exported.onnx, exported.fp16], drawn_dataset, backends=backends)
    assert [(row.artifact, row.backend, row.precision) for row in table.rows] == [
        (str(path), backend, precision)
        for path, precision in ((exported.onnx, "fp32"), (exported.fp16, "fp16"))
        for backend in backends
    ]
    assert (table.kind, table.dataset, table.metric, table.not_run) == ("parity", "drawn", "cosine", ())
    reference = table.reference
    assert (reference.artifact, reference.backend) == (str(exported.checkpoint), "torch")
    assert (reference.drops, reference.min_cosine, reference.worst_queries) == ({}, 1.0, ())
    for row in table.rows:
        backend: Any = row.backend
        file = exported.onnx if row.precision == "fp32" else exported.fp16
        with open_session(file, SessionOptions(backend)) as s:
            result = evaluate(s, drawn_dataset, metric="cosine")
            assert (row.runtime, row.manifest_sha256) == (s.description, s.manifest.sha256)
        assert {name: getattr(row, name) for name in SCORES} == pytest.approx(result.metrics.as_dict())
        assert row.drops == pytest.approx(
            {name: 100 * (getattr(reference, name) - getattr(row, name)) for name in SCORES}
        )
        assert [point.fpr for point in row.operating_points] == [1e-2, 1e-3, 1e-4]
        assert row.p50_batch1_ms > 0 and row.images_per_s > 0
        assert row.warnings == result.roc().warnings
    fp32, fp16 = table.rows[0], table.rows[2]
    assert 1 - 1e-6 < fp32.min_cosine <= fp32.mean_cosine < 1 + 1e-6
    assert 0.999 < fp16.min_cosine < fp32.min_cosine
    assert fp16.size_mib == pytest.approx(exported.fp16.stat().st_size / 2**20, abs=0.01)


def test_a_camera_profile_changes_a_row(exported: Exported, drawn_dataset: Dataset, tmp_path: Path) -> None:
    """Its scores are those of a session with the profile, and a row without it is not that row."""
    artifact = Path(shutil.copy(exported.onnx, tmp_path))
    cameras = write_profile(small_profile(artifact, 512, range(6)), artifact)
    (task,) = tasks_from_artifacts([artifact], ("onnxruntime",), cameras=cameras)
    with open_any(artifact) as reference:
        (row,) = measure_parity(reference, artifact, [task], drawn_dataset).rows
    with open_session(artifact, SessionOptions("onnxruntime"), cameras=cameras) as session:
        expected = evaluate(session, drawn_dataset).metrics
    assert {name: getattr(row, name) for name in SCORES} == pytest.approx(expected.as_dict())
    assert row.min_cosine < 0.999
    assert task.is_done_by(row)
    assert not replace(task, cameras=None).is_done_by(row)


def test_worst_queries_are_those_that_lost_most(
    exported: Exported, damaged: Path, drawn_dataset: Dataset
) -> None:
    """A damaged artifact: rows name the five queries with the largest loss of AP, found by sorting."""
    row = measure(exported, [damaged], drawn_dataset).rows[0]
    paths = [record.path for record in (*drawn_dataset.query, *drawn_dataset.scored_gallery)]
    with (
        open_any(exported.checkpoint) as reference,
        open_session(damaged, SessionOptions(backend="onnxruntime")) as candidate,
    ):
        expected, found = reference.embed(paths), candidate.embed(paths)
    lost = []
    for i, record in enumerate(drawn_dataset.query):
        (before, old_rank), (after, new_rank) = (per_query(f, drawn_dataset, i) for f in (expected, found))
        lost.append((100 * (before - after), f"query/{record.path.name}", old_rank, new_rank))
    lost = sorted((item for item in lost if item[0] > 0), reverse=True)
    assert len(lost) > 5
    assert [worst.ap_drop for worst in row.worst_queries] == pytest.approx([item[0] for item in lost[:5]])
    names = {item[1]: item for item in lost}
    for worst in row.worst_queries:
        drop, _, old_rank, new_rank = names[worst.image]
        assert (worst.reference_rank, worst.candidate_rank) == (old_rank, new_rank)
        assert worst.ap_drop == pytest.approx(drop)
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(expected, found, strict=True)]
    assert row.min_cosine == pytest.approx(min(cosines), abs=1e-5)
    assert row.mean_cosine == pytest.approx(np.mean(cosines), abs=1e-5)


def test_the_precision_is_the_one_that_is_computed_in(
    exported: Exported, drawn_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that a backend computes in bfloat16 are rows of bf16; the table is read again as it was written."""

    def open_here(artifact: Path, options: Any, manifest: Manifest, cameras: None) -> Session:
        session = open_session(artifact, replace(options, backend=options.backend.removesuffix("-bf16")))
        session.backend = options.backend
        return session

    monkeypatch.setattr("reidexport.evaluation.parity.open_session", open_here)
    table = measure(exported, [exported.fp16], drawn_dataset, backends=("openvino", "openvino-bf16"))
    assert [row.precision for row in table.rows] == ["fp16", "bf16"]
    assert ParityTable.model_validate_json(table.model_dump_json()) == table


def test_thresholds_and_warnings_are_printed_whole(
    exported: Exported, drawn_dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    """A printed threshold lets no more impostors pass than the table says, and every warning is printed once."""
    table = measure(exported, [exported.onnx], drawn_dataset)
    (row,) = table.rows
    thresholds = [float(value) for value in np.float32([0.4999996, 0.04999996, 1e-9])]
    points = tuple(
        point.model_copy(update={"threshold": threshold})
        for point, threshold in zip(row.operating_points, thresholds, strict=True)
    )
    odd = row.model_copy(update={"operating_points": points, "warnings": ("odd", *row.warnings)})
    _print(table.model_copy(update={"rows": (odd,)}))
    printed = capsys.readouterr()
    for point in points:
        (shown,) = [word for word in printed.out.split() if word == f"{point.threshold:.9g}"]
        assert np.float32(shown) == np.float32(point.threshold)
    assert printed.err.splitlines().count("warning: odd") == 1
    assert all(printed.err.splitlines().count(f"warning: {text}") == 1 for text in table.reference.warnings)


def test_what_cannot_run_says_why(
    exported: Exported, drawn_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that refuses an artifact, and one that answers NaN, become reasons; the others are measured."""

    class NanBackend:
        def __init__(self, backend: Any) -> None:
            self.backend = backend

        def run(self, batch: NDArray[Any]) -> NDArray[Any]:
            return np.full_like(self.backend.run(batch), np.nan)

        def describe(self) -> str:
            return "nan"

    def open_broken(artifact: Path, options: Any, manifest: Manifest, cameras: None) -> Session:
        session = open_session(artifact, options, manifest=manifest)
        if artifact == exported.fp16:
            session = Session(session.manifest, session.backend, NanBackend(session._network), 1)
        return session

    monkeypatch.setattr("reidexport.evaluation.parity.open_session", open_broken)
    table = measure(
        exported, [exported.fp16, exported.onnx], drawn_dataset, backends=("tensorrt", "onnxruntime")
    )
    assert [row.artifact for row in table.rows] == [str(exported.onnx)]
    refused, broken, _ = table.not_run
    assert (refused.artifact, refused.backend) == (str(exported.fp16), "tensorrt")
    assert "TensorRT runs engines. Build one" in refused.reason
    assert (broken.artifact, broken.backend) == (str(exported.fp16), "onnxruntime")
    assert "The features of 54 of 54 images are NaN or infinite" in broken.reason


def test_a_table_is_gone_on_with(exported: Exported, drawn_dataset: Dataset, tmp_path: Path) -> None:
    """After an interruption finished rows stay, as they are; a changed artifact is measured again."""
    kept: list[ParityTable] = []

    def stop_after_first_row(table: ParityTable) -> None:
        kept.append(table)
        if table.rows:
            raise KeyboardInterrupt

    artifacts = [exported.onnx, exported.fp16]
    with pytest.raises(KeyboardInterrupt):
        measure(exported, artifacts, drawn_dataset, keep=stop_after_first_row)
    assert [len(table.rows) for table in kept] == [0, 1]
    file = tmp_path / "parity.json"
    write_record(file, kept[-1])
    finished = parity_from_json(file)
    assert finished == kept[-1]
    whole = measure(exported, artifacts, drawn_dataset, finished=finished)
    assert whole.rows[0] == finished.rows[0]
    assert [row.artifact for row in whole.rows] == [str(path) for path in artifacts]
    assert measure(exported, artifacts, drawn_dataset, finished=whole) is whole
    stale = whole.rows[0].model_copy(update={"manifest_sha256": "0" * 64})
    again = measure(
        exported, artifacts, drawn_dataset, finished=whole.model_copy(update={"rows": (stale, whole.rows[1])})
    )
    assert again.rows[0] == whole.rows[1]
    assert again.rows[1].manifest_sha256 == whole.rows[0].manifest_sha256


def test_a_row_is_done_where_the_file_is_the_same(exported: Exported, drawn_dataset: Dataset) -> None:
    """Another manifest, other bytes under the same one, and bytes that are not known are measured again."""
    (row,) = measure(exported, [exported.onnx], drawn_dataset).rows
    (task,) = tasks_from_artifacts([exported.onnx], ["onnxruntime"])
    assert row.artifact_sha256 == file_sha256(exported.onnx)
    assert task.is_done_by(row)
    for changed in ({"manifest_sha256": "0" * 64}, {"artifact_sha256": "0" * 64}, {"artifact_sha256": None}):
        assert not task.is_done_by(row.model_copy(update=changed))
    old = row.model_dump_json(exclude={"artifact_sha256"})
    assert ParityRow.model_validate_json(old).artifact_sha256 is None


def test_weights_in_another_file_are_the_artifact_too(
    exported: Exported, drawn_dataset: Dataset, tmp_path: Path
) -> None:
    """Where an ONNX file keeps its weights beside it, other weights there make the row another."""
    artifact = tmp_path / "split.onnx"
    model = onnx.load(exported.onnx)
    onnx.save(model, artifact, save_as_external_data=True, location="split.data")
    table = measure(exported, [artifact], drawn_dataset)
    assert table.not_run == ()
    (row,) = table.rows
    (task,) = tasks_from_artifacts([artifact], ["onnxruntime"])
    assert task.is_done_by(row)
    weights = bytearray((tmp_path / "split.data").read_bytes())
    weights[0] ^= 1
    (tmp_path / "split.data").write_bytes(weights)
    assert not task.is_done_by(row)


def test_reasons_stay_until_they_are_tried_again(exported: Exported, drawn_dataset: Dataset) -> None:
    """Going on with other artifacts keeps what could not run before; going on with the same tries it anew."""
    refused = measure(exported, [exported.fp16], drawn_dataset, backends=["tensorrt"])
    more = measure(exported, [exported.onnx], drawn_dataset, finished=refused)
    assert more.not_run == refused.not_run
    assert [row.artifact for row in more.rows] == [str(exported.onnx)]
    old = refused.not_run[0].model_copy(update={"backend": "onnxruntime", "reason": "not installed"})
    whole = measure(
        exported, [exported.fp16], drawn_dataset, finished=more.model_copy(update={"not_run": (old,)})
    )
    assert whole.not_run == ()
    assert [row.artifact for row in whole.rows] == [str(exported.onnx), str(exported.fp16)]


def test_another_table_is_not_gone_on_with(
    exported: Exported, drawn_dataset: Dataset, tmp_path: Path
) -> None:
    """One of another reference, data set, metric, machine or version is refused, and so is a file that is no table."""
    table = measure(exported, [exported.onnx], drawn_dataset)
    other = table.reference.model_copy(update={"manifest_sha256": "0" * 64})
    changed = table.reference.model_copy(update={"artifact_sha256": "0" * 64})
    elsewhere = table.model_copy(update={"machine": {**table.machine, "load_average": 99.0, "cpu_mhz": 1}})
    assert measure(exported, [exported.onnx], drawn_dataset, finished=elsewhere) is elsewhere
    for update, message in (
        ({"reference": other}, "another reference: 000000000000, now "),
        ({"dataset": "msmt17"}, "another data set: msmt17, now drawn"),
        ({"metric": "euclidean"}, "another metric: euclidean, now cosine"),
        ({"reference": changed}, "another reference file: 000000000000, now "),
        ({"machine": {**table.machine, "cpu": "i486"}}, "another cpu: i486, now "),
        ({"versions": {**table.versions, "onnxruntime": "0.9"}}, r"another onnxruntime: 0\.9, now \d"),
        ({"versions": {**table.versions, "faiss-tpu": "2.0"}}, r"another faiss-tpu: 2\.0, now None"),
        ({"versions": {"python": table.versions["python"]}}, r"another \S+: None, now \S+"),
    ):
        with pytest.raises(InputError, match=f"{message}.*Choose another --json FILE, or start anew"):
            measure(exported, [exported.onnx], drawn_dataset, finished=table.model_copy(update=update))
    file = tmp_path / "other.json"
    file.write_text('{"kind": "benchmark"}')
    with pytest.raises(
        InputError, match=r"other\.json: not a whole benchmark record: .* anew without --resume"
    ):
        parity_from_json(file)
    report = BenchReport(session="", batches=(), end_to_end=None, warnings=(), **here())
    write_record(file, report)
    with pytest.raises(InputError, match=r"other\.json: not a table of parity, but of the kind bench"):
        parity_from_json(file)


def test_artifacts_are_checked_before_anything_runs(exported: Exported, tmp_path: Path) -> None:
    """A missing file, a checkpoint, a foreign ONNX file, a plan alone and a name given twice are refused at once."""
    foreign, plan = tmp_path / "foreign.onnx", tmp_path / "model.engine"
    model = onnx.load(exported.onnx)
    del model.metadata_props[:]
    onnx.save(model, foreign)
    plan.write_bytes(b"plan")
    for path, message in (
        (tmp_path / "lost.onnx", "there is no such file"),
        (exported.checkpoint, "neither ONNX nor a TensorRT engine. Export it: reidexport onnx"),
        (foreign, "carries no manifest. State its facts: --size --mean --std"),
        (plan, "its manifest model.engine.json is not beside it"),
    ):
        with pytest.raises(ArtifactError, match=message):
            tasks_from_artifacts([exported.onnx, path])
    with pytest.raises(InputError, match=r"Expected artifacts, each once, got .*small\.onnx, .*small\.onnx"):
        tasks_from_artifacts([exported.onnx, exported.onnx])
    with pytest.raises(InputError, match="each once, got none"):
        tasks_from_artifacts([])


def test_backends_are_those_that_suit_the_artifact(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ONNX file runs on both CPU backends, with a GPU also there; backends that are named are all tried."""
    monkeypatch.setattr("reidexport.evaluation.parity.first_gpu", lambda: None)
    assert [task.backend for task in tasks_from_artifacts([exported.onnx])] == ["onnxruntime", "openvino"]
    monkeypatch.setattr("reidexport.evaluation.parity.first_gpu", lambda: "a GPU")
    found = [task.backend for task in tasks_from_artifacts([exported.onnx])]
    assert found == ["onnxruntime", "openvino", "onnxruntime-cuda", "torch-cuda", "tensorrt-rtx"]
    named = tasks_from_artifacts([exported.onnx], ["tensorrt", "openvino", "tensorrt"])
    assert [task.backend for task in named] == ["tensorrt", "openvino"]


def test_a_file_without_a_manifest_is_a_row_like_others(
    exported: Exported, drawn_dataset: Dataset, tmp_path: Path
) -> None:
    """With its facts stated it is opened and compared as a file with a manifest is."""
    path = tmp_path / "other.onnx"
    model = onnx.load(exported.onnx)
    del model.metadata_props[:]
    onnx.save(model, path)
    stated = ForeignOptions(size="64x32", mean="0", std="1/255", layout="NHWC").manifests([path])
    tasks = tasks_from_artifacts([path], ["onnxruntime"], manifests=stated)
    with open_any(exported.checkpoint) as reference:
        table = measure_parity(reference, exported.checkpoint, tasks, drawn_dataset)
    assert table.not_run == ()
    assert table.rows[0].min_cosine > 0.99999
    assert table.rows[0].manifest_sha256 == stated[path].sha256


def test_features_of_another_kind_are_not_compared(exported: Exported, drawn_dataset: Dataset) -> None:
    """f_t against f_i, and another length, are refused before anything runs, with both named."""
    task = tasks_from_artifacts([exported.onnx])[0]
    with open_any(exported.checkpoint, feature="f_t") as reference:
        with pytest.raises(
            InputError, match=r"small\.onnx is not comparable: its feature is f_i, the ref.* f_t"
        ):
            measure_parity(reference, exported.checkpoint, [task], drawn_dataset)
    network = task.manifest.architecture.model_copy(update={"feature_dim": 7})
    shorter = Task(task.artifact, task.manifest.model_copy(update={"architecture": network}), task.backend)
    with open_any(exported.checkpoint) as reference:
        with pytest.raises(InputError, match=r"its features have 7 values .*, the reference's 512"):
            measure_parity(reference, exported.checkpoint, [shorter], drawn_dataset)


def test_the_command_prints_one_table_and_keeps_it(
    run: Run, exported: Exported, damaged: Path, drawn_dataset: Dataset, tmp_path: Path
) -> None:
    """What is printed is narrow, names every artifact and reason, and is what --json holds; --resume adds to it."""
    file, root = tmp_path / "parity.json", drawn_dataset.query[0].path.parents[1]
    common = ("--data", root, "--json", file, "--backend", "onnxruntime")
    done = run("parity", exported.checkpoint, exported.fp16, *common)
    assert done.returncode == 0, done.stderr
    done = run(
        "parity", exported.checkpoint, exported.fp16, damaged, *common, "--backend", "tensorrt", "--resume"
    )
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 110
    table = parity_from_json(file)
    assert [Path(row.artifact).name for row in table.rows] == ["small_fp16.onnx", "damaged.onnx"]
    damaged_row = table.rows[1]
    line = next(line for line in done.stdout.splitlines() if line.startswith("damaged.onnx"))
    scores = (damaged_row.rank1, damaged_row.rank5, damaged_row.rank10, damaged_row.mAP, damaged_row.mINP)
    drops = [f"{damaged_row.drops[name]:+.2f}" for name in ("rank1", "mAP")]
    assert line.split() == [
        "damaged.onnx",
        "onnxruntime",
        "fp32",
        *(f"{100 * score:.2f}" for score in scores),
        *drops,
    ]
    assert Path(damaged_row.worst_queries[0].image).name in done.stdout
    assert "not run: small_fp16.onnx, tensorrt: " in done.stdout
    assert all(f"warning: {warning}" in done.stderr for warning in table.reference.warnings)
    content = json.loads(file.read_text())
    assert {
        "kind",
        "version",
        "dataset",
        "metric",
        "same_camera",
        "reference",
        "rows",
        "not_run",
        "machine",
        "versions",
        "is_busy",
    } == set(content)
    assert [item["backend"] for item in content["not_run"]] == ["tensorrt", "tensorrt"]


def test_the_command_refuses_what_it_cannot_do(
    run: Run, exported: Exported, drawn_dataset: Dataset, tmp_path: Path
) -> None:
    """--resume without a file, an unknown backend and a table without a row end with status 2 and the reason."""
    root = drawn_dataset.query[0].path.parents[1]
    done = run("parity", exported.checkpoint, exported.onnx, "--data", root, "--resume")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--resume continues a table in a file: pass --json FILE too" in done.stderr
    done = run("parity", exported.checkpoint, exported.onnx, "--data", root, "--backend", "tensorflow")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no backend 'tensorflow'. Expected one of onnxruntime, onnxruntime-cuda, openvino" in done.stderr
    done = run("parity", exported.checkpoint, exported.onnx, "--data", root, "--backend", "tensorrt")
    assert done.returncode == 2
    assert "not run: small.onnx, tensorrt: " in done.stdout
    assert "None of the artifacts could be run; the reasons are above" in done.stderr
