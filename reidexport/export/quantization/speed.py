"""Is a quantized network faster and smaller than the float32 one, on this machine and as a session would run it?"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from reidruntime.artifact.manifest import Manifest
from reidruntime.backends import Backend, Network, open_backend
from reidruntime.threads import default_threads

from reidexport.cpu_share import cpu_use, disturbance, others_share
from reidexport.machine import machine_info

BATCH_SIZES = (1, 8)
_SECONDS = 1.5  # for each batch size
_FEWEST_TURNS = 5
_PAUSE_S = 0.02  # in which the threads of the network before stop to spin


def compare_with_fp32(
    fp32: onnx.ModelProto,
    int8: onnx.ModelProto,
    manifest: Manifest,
    images: NDArray[Any],
    log: Callable[[str], None],
) -> None:
    """Say how fast an INT8 network is beside the one that it was made from, and how large, a line each.

    They answer in turns, each on the backend that ``open_session`` chooses for it on the CPU. The form for TensorRT,
    which a CPU computes in float32, is compared by size only.

    Args:
        fp32: the network before.
        int8: the network after.
        manifest: of the INT8 file.
        images: some, as the network takes them.
        log: called with a line for each thing that was found out.
    """
    sizes = fp32.ByteSize(), int8.ByteSize()
    if manifest.quantization and manifest.quantization.target == "tensorrt":
        log(f"{_size_line(*sizes)}; its speed is that of an engine: reidexport bench ENGINE")
        return
    with TemporaryDirectory(prefix="reidexport-") as folder:
        backends = []
        for name, model in (("fp32", fp32), ("int8", int8)):
            path = Path(folder) / f"{name}.onnx"
            onnx.save(model, path)
            network = Network(
                path,
                manifest.input,
                manifest.output,
                "int8" if name == "int8" else "fp32",
                depthwise=manifest.architecture.backbone.startswith("osnet"),
            )
            backends.append(open_backend(network, "auto", "cpu", default_threads())[1])
        machine, before = machine_info(), cpu_use()
        static = manifest.batch_profile.static
        times = {size: _times(backends, images, size) for size in ((static,) if static else BATCH_SIZES)}
        disturbed = disturbance(others_share(before, cpu_use()), machine)
    places = f"FP32 on {backends[0].describe()}, INT8 on {backends[1].describe()}"
    for line in speed_lines(sizes, times, f"{machine['cpu']}: {places}", disturbed):
        log(line)


def speed_lines(
    sizes: tuple[int, int], times: Mapping[int, tuple[float, float]], place: str, disturbed: str | None
) -> list[str]:
    """What to say of two networks, FP32 first.

    Args:
        sizes: in bytes.
        times: seconds of a run, by batch size.
        place: the machine, and what ran them.
        disturbed: what else the machine was doing, in words, if that was much.
    """
    lines = [f"INT8 beside FP32 on this machine ({place}):"]
    for batch, (fp32, int8) in times.items():
        speeds = f"{batch / int8:.0f} images/s, FP32 {batch / fp32:.0f}"
        lines.append(f"  batch {batch}: INT8 {speeds}: {fp32 / int8:.2f} × its speed")
    lines.append(f"  {_size_line(*sizes)}")
    if disturbed:
        lines.append(
            f"warning: {disturbed}, so the speeds are doubtful; measure again: reidexport bench FILE"
        )
    faults = ["slower"] * all(int8 > fp32 for fp32, int8 in times.values())
    faults += ["larger"] * (sizes[1] > sizes[0])
    if faults:
        lines.append(
            f"warning: the INT8 file is {' and '.join(faults)} than FP32's here. Unless another machine gains from it, "
            "use FP32"
        )
    return lines


def _size_line(fp32: int, int8: int) -> str:
    return f"size: INT8 {int8 / 1000:.0f} kB, FP32 {fp32 / 1000:.0f} kB"


def _times(backends: Sequence[Backend], images: NDArray[Any], batch_size: int) -> tuple[float, float]:
    """Seconds of a run of each, the median of runs in turns."""
    batch = np.resize(images, (batch_size, *images.shape[1:]))
    for backend in backends:
        backend.run(batch)
    times: list[list[float]] = []
    began = time.perf_counter()
    while len(times) < _FEWEST_TURNS or time.perf_counter() - began < _SECONDS:
        times.append([_seconds(backend, batch) for backend in backends])
    fp32, int8 = np.median(times, axis=0)
    return float(fp32), float(int8)


def _seconds(backend: Backend, batch: NDArray[Any]) -> float:
    time.sleep(_PAUSE_S)
    began = time.perf_counter()
    backend.run(batch)
    return time.perf_counter() - began
