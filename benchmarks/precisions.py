"""What does each precision cost in accuracy, and gain in speed and size?

    python -m benchmarks.precisions CHECKPOINT --calibration DIR [--data ROOT] [--json FILE]

Exports a checkpoint in FP32, FP16 and both forms of INT8, scores each file on a data set, and times those that are for
CPUs against torch in turn (A B C, A B C, …): a ratio is that of two neighbors in time, and has a spread.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from reidruntime import Manifest, Session, open_session
from reidruntime.artifact.manifest import Precision, QuantizationTarget
from reidruntime.backends import BackendName

from reidexport import evaluate, graph_from_checkpoint, load_checkpoint, onnx_from_graph
from reidexport.checkpoint.loading import Checkpoint
from reidexport.cpu_share import cpu_use, disturbance, others_share
from reidexport.data import load_dataset
from reidexport.evaluation.torch_session import session_from_checkpoint
from reidexport.files import replaced_when_whole
from reidexport.machine import MachineInfo, machine_info, package_versions
from reidexport.progress import progress_bar

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
    machine, checkpoint = machine_info(), load_checkpoint(options.checkpoint)
    with TemporaryDirectory(prefix="precisions-") as folder:
        files = {name: Path(folder) / f"{name.replace(' ', '-')}.onnx" for name in FORMS}
        rows = [_export(checkpoint, name, file, options.calibration) for name, file in files.items()]
        if options.data:
            _score(checkpoint, rows, files, options.data)
        speeds, disturbed = _speeds(checkpoint, files, options.batch, options.rounds, machine)
    report = {
        "checkpoint": options.checkpoint.name,
        "architecture": checkpoint.summary,
        "precisions": rows,
        "speed": speeds,
        "disturbed": disturbed,
        "timed": "Session.run: uint8 pixels in memory to float32 features, without decoding and resizing",
        "machine": machine,
        "versions": package_versions(),
    }
    _print(report)
    if options.json:
        with replaced_when_whole(options.json) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n")


def _export(checkpoint: Checkpoint, name: str, file: Path, calibration: Path) -> dict[str, Any]:
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
    return {
        "name": name,
        "size_mib": round(file.stat().st_size / 2**20, 2),
        "layer_precisions": manifest.layer_precisions,
        "quantization": made.model_dump(exclude={"sensitivity"}) if made else None,
    }


def _score(checkpoint: Checkpoint, rows: list[dict[str, Any]], files: dict[str, Path], data: Path) -> None:
    """Add rank-1, mAP and what they lost against torch, in percentage points."""
    dataset = load_dataset(data)
    total = len(dataset.query) + len(dataset.scored_gallery)
    with session_from_checkpoint(checkpoint) as session, progress_bar("torch", total) as progress:
        reference = evaluate(session, dataset, progress=progress).metrics.as_dict()
    for row in rows:
        with open_session(files[row["name"]]) as session, progress_bar(row["name"], total) as progress:
            found = evaluate(session, dataset, progress=progress)
        metrics = found.metrics.as_dict()
        row |= {"dataset": dataset.name, "runtime": session.description, **metrics}
        row["drops"] = {key: 100 * (reference[key] - metrics[key]) for key in ("rank1", "mAP")}


def _speeds(
    checkpoint: Checkpoint,
    files: dict[str, Path],
    batch_sizes: Sequence[int],
    rounds: int,
    machine: MachineInfo,
) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """Milliseconds of each runtime, and how many times as fast as torch eager it is: median and range over rounds.

    Of batch sizes whose measurement other processes disturbed, the second answer tells by what instead.
    """
    sessions: dict[tuple[str, str], Session] = {("fp32", "torch eager"): session_from_checkpoint(checkpoint)}
    for name in TIMED_FORMS:
        sessions |= {(name, backend): open_session(files[name], backend=backend) for backend in BACKENDS}
    found, disturbed = [], {}
    for size in batch_sizes:
        wanted = checkpoint.preprocess
        pixels = np.random.default_rng(0).integers(
            0, 256, (size, wanted.height_px, wanted.width_px, 3), dtype=np.uint8
        )
        before = cpu_use()
        times: NDArray[np.float64] = np.array(
            [[_seconds(session, pixels) for session in sessions.values()] for _ in range(rounds + 1)]
        )[1:]  # the first round warms up
        if reason := disturbance(others_share(before, cpu_use()), machine):
            disturbed[size] = reason
            continue
        ratios = times[:, :1] / times
        for (name, runtime), own, ratio in zip(sessions, times.T, ratios.T, strict=True):
            found.append(
                {
                    "batch_size": size,
                    "precision": name,
                    "runtime": runtime,
                    "p50_ms": round(float(np.median(own)) * 1000, 2),
                    "images_per_s": round(size / float(np.median(own)), 1),
                    "times_torch": round(float(np.median(ratio)), 2),
                    "times_torch_range": [round(float(ratio.min()), 2), round(float(ratio.max()), 2)],
                }
            )
    for session in sessions.values():
        session.close()
    return found, disturbed


def _seconds(session: Session, pixels: NDArray[np.uint8]) -> float:
    began = time.perf_counter()
    session.run(pixels)
    return time.perf_counter() - began


def _print(report: dict[str, Any]) -> None:
    print(report["architecture"])
    for row in report["precisions"]:
        accuracy = ""
        if "mAP" in row:
            drops = f"drops {row['drops']['rank1']:.3f} / {row['drops']['mAP']:.3f} points"
            accuracy = f"rank-1 {row['rank1']:.2%}  mAP {row['mAP']:.2%}  {drops}"
        print(f"{row['name']:18} {row['size_mib']:7.1f} MiB  {row['layer_precisions']}  {accuracy}")
    for row in report["speed"]:
        low, high = row["times_torch_range"]
        print(
            f"batch {row['batch_size']:3}  {row['precision']:14} {row['runtime']:12} {row['p50_ms']:9.2f} ms  "
            f"{row['times_torch']:.2f} x torch ({low:.2f} to {high:.2f})"
        )
    for size, reason in report["disturbed"].items():
        print(f"batch {size:3}  not given: {reason}")


if __name__ == "__main__":
    main()
