"""What does each precision cost in accuracy, and gain in speed and size?

    python -m benchmarks.precisions CHECKPOINT --calibration DIR [--data ROOT] [--json FILE]

Exports a checkpoint in FP32, FP16 and both forms of INT8, scores each file on a data set, and times those that are for
CPUs against torch in turn (A B C, A B C, …): a ratio is that of two neighbors in time, and has a spread.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from reidruntime import Manifest, Session, SessionOptions, open_session
from reidruntime.artifact.manifest import Precision, QuantizationTarget
from reidruntime.backends import BackendName

from benchmarks.harness.turns import one_call, spread
from reidexport import evaluate, graph_from_checkpoint, load_checkpoint, onnx_from_graph
from reidexport.checkpoint.loading import Checkpoint
from reidexport.cpu_share import cpu_use, disturbance, others_share
from reidexport.data import load_dataset
from reidexport.evaluation.timing import noise
from reidexport.evaluation.torch_session import session_from_checkpoint
from reidexport.machine import MachineInfo
from reidexport.progress import progress_bar
from reidexport.records.base import here
from reidexport.records.reading import write_record
from reidexport.records.speed import (
    ExportedPrecision,
    PrecisionScores,
    PrecisionSpeed,
    PrecisionsRecord,
    Ratio,
)

FORMS: dict[str, tuple[Precision, QuantizationTarget]] = {
    "fp32": ("fp32", "cpu"),
    "fp16": ("fp16", "cpu"),
    "int8 for CPUs": ("int8", "cpu"),
    "int8 for TensorRT": ("int8", "tensorrt"),
}
# The others are for GPUs: a CPU computes them in float32.
TIMED_FORMS = ("fp32", "int8 for CPUs")
BACKENDS: tuple[BackendName, ...] = ("onnxruntime", "openvino")


def main() -> None:
    """Measure and print one table; write it as JSON if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument(
        "--calibration", type=Path, required=True, help="images for INT8: a folder or a data set"
    )
    parser.add_argument("--data", type=Path, help="data set to score on; none: speed only")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    place, checkpoint = here(), load_checkpoint(options.checkpoint)
    with TemporaryDirectory(prefix="precisions-") as folder:
        files = {name: Path(folder) / f"{name.replace(' ', '-')}.onnx" for name in FORMS}
        rows = [_export(checkpoint, name, file, options.calibration) for name, file in files.items()]
        if options.data:
            rows = _scored(checkpoint, rows, files, options.data)
        speeds, disturbed = _speeds(checkpoint, files, options.batch, options.rounds, place["machine"])
    record = PrecisionsRecord(
        checkpoint=options.checkpoint.name,
        architecture=checkpoint.summary,
        precisions=tuple(rows),
        speed=tuple(speeds),
        disturbed=disturbed,
        **place,
    )
    _print(record)
    write_record(options.json, record)


def _export(checkpoint: Checkpoint, name: str, file: Path, calibration: Path) -> ExportedPrecision:
    precision, target = FORMS[name]
    print(f"exporting {name}", file=sys.stderr)
    manifest: Manifest = onnx_from_graph(
        graph_from_checkpoint(checkpoint),
        file,
        precision=precision,
        calibration=calibration if precision == "int8" else None,
        target=target,
        progress_bar=progress_bar,
    )
    made = manifest.quantization
    return ExportedPrecision(
        name=name,
        size_mib=round(file.stat().st_size / 2**20, 2),
        layer_precisions=manifest.layer_precisions,
        quantization=made.model_dump(exclude={"sensitivity", "image_digits"}) if made else None,
    )


def _scored(
    checkpoint: Checkpoint, rows: Sequence[ExportedPrecision], files: dict[str, Path], data: Path
) -> list[ExportedPrecision]:
    """The same with accuracies, and what they lost against torch."""
    dataset = load_dataset(data)
    total = len(dataset.query) + len(dataset.scored_gallery)
    with session_from_checkpoint(checkpoint) as session, progress_bar("torch", total) as progress:
        reference = evaluate(session, dataset, progress=progress).metrics.ranks
    scored = []
    for row in rows:
        with open_session(files[row.name]) as session, progress_bar(row.name, total) as progress:
            found = evaluate(session, dataset, progress=progress).metrics.ranks
        scores = PrecisionScores(
            dataset=dataset.name,
            runtime=session.description,
            drops=found.drops_from(reference),
            **dict(found),
        )
        scored.append(row.model_copy(update={"scores": scores}))
    return scored


def _speeds(
    checkpoint: Checkpoint,
    files: dict[str, Path],
    batch_sizes: Sequence[int],
    rounds: int,
    machine: MachineInfo,
) -> tuple[list[PrecisionSpeed], dict[int, str]]:
    """Milliseconds of each runtime, and how many times as fast as torch eager it is: median and range over rounds.

    Of batch sizes whose measurement other processes disturbed, the second answer tells by what instead.
    """
    sessions: dict[tuple[str, str], Session] = {("fp32", "torch eager"): session_from_checkpoint(checkpoint)}
    for name, backend in product(TIMED_FORMS, BACKENDS):
        sessions[name, backend] = open_session(files[name], SessionOptions(backend))
    found, disturbed = [], {}
    for size in batch_sizes:
        calls = [partial(session.run, noise(session, size)) for session in sessions.values()]
        before = cpu_use()
        times = np.array([[one_call(call) for call in calls] for _ in range(rounds + 1)])
        times = times[1:, :, 0]  # the first round warms up
        if reason := disturbance(others_share(before, cpu_use()), machine):
            disturbed[size] = reason
            continue
        ratios = times[:, :1] / times
        for (name, runtime), own, ratio in zip(sessions, times.T, ratios.T, strict=True):
            found.append(
                PrecisionSpeed(
                    batch_size=size,
                    precision=name,
                    runtime=runtime,
                    p50_ms=round(float(np.median(own)) * 1000, 2),
                    images_per_s=round(size / float(np.median(own)), 1),
                    times_torch=Ratio(**spread(ratio.tolist())),
                )
            )
    for session in sessions.values():
        session.close()
    return found, disturbed


def _print(record: PrecisionsRecord) -> None:
    print(record.architecture)
    for row in record.precisions:
        accuracy = ""
        if scores := row.scores:
            drops = f"drops {scores.drops['rank1']:.3f} / {scores.drops['mAP']:.3f} points"
            accuracy = f"rank-1 {scores.rank1:.2%}  mAP {scores.mAP:.2%}  {drops}"
        print(f"{row.name:18} {row.size_mib:7.1f} MiB  {row.layer_precisions}  {accuracy}")
    for speed in record.speed:
        ratio = speed.times_torch
        print(
            f"batch {speed.batch_size:3}  {speed.precision:14} {speed.runtime:12} {speed.p50_ms:9.2f} ms  "
            f"{ratio.median:.2f} x torch ({ratio.lowest:.2f} to {ratio.highest:.2f})"
        )
    for size, reason in record.disturbed.items():
        print(f"batch {size:3}  not given: {reason}")


if __name__ == "__main__":
    main()
