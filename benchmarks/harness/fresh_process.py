"""One answer by a process that has just started: how long that takes, and how much memory it needs.

python -m benchmarks.harness.fresh_process SIDE ARTIFACT BACKEND PIXELS.npy [CHECKPOINT]

prints seconds from before the first import to the last answer, and the peak of the resident memory. Imports are late: a
process loads only what its side needs.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

_ROOT = Path(__file__).parents[2]
_REPEATS = 3  # memory for the answers in later runs is part of what a side needs


class FreshAnswer(NamedTuple):
    """What one process reports; ``features`` are its answers to all pixels."""

    first_answer_s: float
    peak_mib: float
    features: list[list[float]]


def fresh_answer(
    side: str, artifact: Path, backend: str, pixels: Path, checkpoint: Path | None = None
) -> FreshAnswer:
    """Start a process that answers the pixels once and again as one side does, and wait for its end."""
    arguments = [side, artifact, backend, pixels, *([checkpoint] if checkpoint else [])]
    return FreshAnswer(**json.loads(_last_line_of("-m", "benchmarks.harness.fresh_process", *arguments)))


def peak_mib_of(code: str) -> float:
    """The most memory that a process which only runs this Python code holds at a time, its imports included."""
    report = "from benchmarks.harness.fresh_process import peak_mib_of_this_process as peak; print(peak())"
    return float(_last_line_of("-c", f"{code}\n{report}"))


def _last_line_of(*arguments: object) -> str:
    """What a fresh Python prints last; its stderr goes where ours does."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=_ROOT)  # noqa: S603
    return done.stdout.splitlines()[-1]


def main() -> None:
    """Answer, and print time and memory."""
    began = time.perf_counter()
    side, artifact, backend, pixels_file, *checkpoint = sys.argv[1:]
    import numpy as np

    pixels = np.load(pixels_file)
    embed = _opened(side, Path(artifact), backend, checkpoint)
    features = embed(pixels)
    first_answer_s = time.perf_counter() - began
    for _ in range(_REPEATS - 1):
        embed(pixels)
    print(json.dumps({
        "first_answer_s": first_answer_s, "peak_mib": peak_mib_of_this_process(), "features": features.tolist()
    }))  # fmt: skip


def _opened(side: str, artifact: Path, backend: str, checkpoint: list[str]) -> Any:
    from benchmarks.peers import peers

    if side == "onnxruntime bare":
        return peers.bare_onnxruntime(artifact, "cpu")
    if side == "openvino bare":
        return peers.bare_openvino(artifact)
    if side == "torch eager":
        from reidruntime.artifact.own_manifest import artifact_manifest

        from reidexport import GraphOptions, load_checkpoint

        facts = artifact_manifest(artifact)
        options = GraphOptions(feature=facts.feature, normalize=facts.normalized, flip=facts.flip)
        return peers.torch_eager(load_checkpoint(checkpoint[0]), options)
    from reidruntime import SessionOptions, open_session

    return open_session(artifact, SessionOptions(backend=backend, threads=peers.num_threads())).run  # type: ignore[arg-type]


def peak_mib_of_this_process() -> float:
    """The most memory that this program has held; ``ru_maxrss`` begins with that of the process which started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise OSError("/proc/self/status has no VmHWM: the peak of the memory is not known.")


if __name__ == "__main__":
    main()
