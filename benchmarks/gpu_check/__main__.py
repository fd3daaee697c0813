"""``python -m benchmarks.gpu_check [--json FILE] [--quick] [--checkpoint FILE] [--artifact FILE] [--limit SECONDS]``.

Exit status: 0 everything passed or was skipped, 1 a check failed, 2 bad usage, 3 there is no NVIDIA GPU or no pydantic
(and nothing is written). ``reidruntime`` is found in the checkout where it is not installed.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 530.0
_OK, _FAILED, _USAGE, _NOT_HERE = range(4)


def main(arguments: list[str]) -> int:
    """Check and measure; returns the exit status."""
    began = time.monotonic()
    if str(ROOT / "engines" / "python") not in sys.path:
        sys.path.append(str(ROOT / "engines" / "python"))
    options = _parser().parse_args(arguments)
    for given in (options.checkpoint, options.artifact):
        if given is not None and not given.is_file():
            print(f"{given}: there is no such file", file=sys.stderr)
            return _USAGE
    if options.limit <= 0:
        print(f"--limit: expected a positive number of seconds, got {options.limit}", file=sys.stderr)
        return _USAGE

    try:
        import reidruntime  # noqa: F401
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed: install it, or put it on PYTHONPATH.", file=sys.stderr)
        return _NOT_HERE

    from reidruntime.errors import InputError
    from reidruntime.tensorrt_library import first_gpu

    from benchmarks.gpu_check.deadline import Deadline
    from benchmarks.gpu_check.report import line, passed, report, write_report
    from benchmarks.gpu_check.settings import Settings, quick
    from benchmarks.gpu_check.supervisor import run_groups

    if first_gpu() is None:
        print(
            "gpu-check needs an NVIDIA GPU, and this process finds none (check nvidia-smi and CUDA_VISIBLE_DEVICES). "
            "Nothing was checked and nothing written.",
            file=sys.stderr,
        )
        return _NOT_HERE
    deadline = Deadline(options.limit - (time.monotonic() - began))
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        settings = Settings(
            folder=folder,
            checkpoint=str(options.checkpoint.resolve()) if options.checkpoint else None,
            artifact=str(options.artifact.resolve()) if options.artifact else None,
        )
        settings = quick(settings) if options.quick else settings
        outcomes = run_groups(settings, deadline, say=lambda outcome: print(line(outcome), flush=True))
        facts = settings.file("network.json")
        content = report(
            outcomes,
            json.loads(facts.read_text()) if facts.is_file() else {},
            seconds=time.monotonic() - began,
            limit_s=options.limit,
            is_quick=options.quick,
        )
    counts = content["counts"]
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
    if options.json is not None:
        try:
            write_report(options.json, content)
        except InputError as error:
            print(error, file=sys.stderr)
            return _USAGE
        print(f"wrote {options.json}")
    return _OK if passed(outcomes) else _FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu-check", description="Check and measure every GPU path.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found to FILE")
    parser.add_argument("--quick", action="store_true", help="a tiny network and few calls: does it run?")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="a real network instead of a seeded ResNet-50"
    )
    parser.add_argument("--artifact", type=Path, metavar="FILE", help="an ONNX file instead of an export")
    parser.add_argument(
        "--limit", type=float, default=LIMIT_S, metavar="SECONDS", help=f"end by then (default {LIMIT_S:.0f})"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
