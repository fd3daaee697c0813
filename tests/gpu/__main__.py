"""``python -m tests.gpu [--only NAME...] [--device cuda|cpu] [--quick] [--json FILE] [--limit SECONDS]``.

Each file of checks runs in a pytest process of its own, under a time limit of its own: what breaks the GPU's context,
hangs or crashes fails that file, and no other.

Exit status: 0 passed; 1 failed, and "failures" says why; 2 bad usage; 3 a GPU or a package is missing.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reidexport.records.checks import GpuCheck

ROOT = Path(__file__).resolve().parents[2]
CHECKS, RUNTIME = Path(__file__).parent, str(ROOT / "engines" / "python")
# Files of checks in the order in which they get time, and the seconds after which each is ended.
LIMITS_S = {
    "reference": 150.0, "device_memory": 60.0, "torch": 270.0, "onnxruntime": 100.0, "tensorrt": 240.0,
    "gallery": 60.0, "training": 270.0, "cpp": 60.0,
}  # fmt: skip
REFERENCE, PATHS = "reference", ("torch", "onnxruntime", "tensorrt")
LIMIT_S, LEAST_S = 530.0, 15.0
# What the checks import; what a path alone needs may be missing.
NEEDED = (
    "matplotlib", "numba", "numpy", "onnx", "onnxruntime", "onnxscript", "PIL", "pydantic", "pytest", "tensorboard",
    "threadpoolctl", "timm", "torch", "torchvision",
)  # fmt: skip
_GPU_FACTS = "name,driver_version,memory.total,power.limit,clocks.max.sm,clocks.max.mem,temperature.gpu"
_PACKAGES = ("cuda-", "nvidia-", "onnx", "tensorrt", "triton", "pycuda", "pydantic")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the files of checks; returns the exit status."""
    began = time.monotonic()
    options = _options(arguments)
    if missing := _missing(options.device):
        print(f"gpu-check needs {missing}", file=sys.stderr)
        return 3
    sys.path.append(RUNTIME)
    from reidexport.records.base import here
    from reidexport.records.checks import GpuCheckRecord
    from reidexport.records.reading import write_record

    checks: list[GpuCheck] = []
    not_run: list[str] = []
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as name:
        folder = Path(name)
        for group in options.only or LIMITS_S:
            left_s = options.limit - (time.monotonic() - began)
            if left_s < LEAST_S:
                not_run.append(group)
                continue
            limit_s = LIMITS_S[group] * (4 if options.device == "cpu" else 1)  # which is slower
            found, log = run_file(group, min(limit_s, left_s), options, folder)
            checks += found
            print(log if any(each.outcome == "failed" for each in found) else "", end="")
            for line, count in Counter(map(_line, found)).items():
                print(line + (f" ({count} checks)" if count > 1 else ""), flush=True)
    failures = failures_of(checks, not_run, options.only)
    counts = Counter(each.outcome for each in checks)
    print(f"{counts['passed']} passed, {counts['skipped']} skipped", *(failures or ["all is well"]), sep="; ")
    place = here()
    libraries = {each.name: each.version for each in distributions() if each.name.startswith(_PACKAGES)}
    record = GpuCheckRecord(
        passed=not failures,
        failures=tuple(failures),
        not_run=tuple(not_run),
        seconds=round(time.monotonic() - began, 1),
        gpus=_gpus(),
        checks=tuple(checks),
        machine=place["machine"],
        versions=place["versions"] | libraries,
        **{name: getattr(options, name) for name in ("device", "quick", "only")},
    )
    write_record(options.json, record)
    return 1 if failures else 0


def run_file(group: str, limit_s: float, options: Namespace, folder: Path) -> tuple[list["GpuCheck"], str]:
    """Run one file of checks, and end it with all that it started after ``limit_s``; returns the checks and its output.

    Unless the file comes to its end, one of the checks is "the file", which failed.
    """
    lines, log = folder / f"test_{group}.lines", folder / f"{group}.log"
    command = (
        *(sys.executable, "-m", "pytest", str(CHECKS / f"test_{group}.py"), f"--confcutdir={CHECKS}"),
        *("-p", "no:cacheprovider", f"--basetemp={folder / group}", f"--folder={folder}"),
        *(f"--device={options.device}", *(["--quick-check"] if options.quick else [])),
    )
    paths = (str(ROOT), RUNTIME, os.environ.get("PYTHONPATH", ""))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # the checks need none
    environment["TEARDOWN_CUPTI"] = "0"  # a profiler that is closed between CUDA graphs can crash
    if options.device == "cpu" or group == REFERENCE:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    how = ""
    lines.touch()
    with log.open("w") as output:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        # A session of its own, so that what it starts can be ended with it.
        process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **streams)
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            how = f"did not end within {limit_s:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    from reidexport.records.checks import GpuCheck

    checks: dict[str, dict[str, Any]] = {}
    for line in lines.read_text().splitlines():
        found = json.loads(line, parse_constant=lambda _: None)  # JSON has no NaN or infinity
        checks[found["check"]] = {"outcome": "failed", "reason": "its process ended first", **found}
    is_whole = bool(checks) and all("seconds" in each for each in checks.values())
    if how or not is_whole or process.returncode not in (0, 1):
        how = how or f"its process ended with status {process.returncode}"
        checks["the file"] = {"check": "the file", "outcome": "failed", "reason": how}
    return [GpuCheck(group=group, **each) for each in checks.values()], log.read_text(errors="replace")


def failures_of(checks: Sequence["GpuCheck"], not_run: Sequence[str], only: Sequence[str]) -> list[str]:
    """Why the whole has not passed; nothing when it has.

    Of all files, the parity of at least one GPU path must pass; of the files that were chosen, something of each.
    """
    passed = {(each.group, each.check.split("[")[0]) for each in checks if each.outcome == "passed"}
    num_failed = sum(each.outcome == "failed" for each in checks)
    found = [f"{num_failed} failed"] if num_failed else []
    if {each.outcome for each in checks if each.group == REFERENCE} != {"passed"}:
        found.append("the float32 reference did not pass")
    if not only and not any((path, "parity") in passed for path in PATHS):
        found.append(f"no GPU path passed, of {', '.join(PATHS)}")
    found += [f"nothing passed of {group}" for group in only if group not in dict(passed)]
    return found + ([f"no time was left for {', '.join(not_run)}"] if not_run else [])


def _options(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(prog="gpu-check", description="Check and measure every GPU path.")
    parser.add_argument("--only", nargs="+", choices=LIMITS_S, default=[], help="beside the reference")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu tries the checks out")
    parser.add_argument("--quick", action="store_true", help="a tiny network and few calls: does it run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was found")
    parser.add_argument("--limit", type=float, metavar="SECONDS", default=LIMIT_S, help="end by then")
    options = parser.parse_args(arguments)
    options.only = [name for name in LIMITS_S if options.only and name in (REFERENCE, *options.only)]
    if options.json is not None and not options.json.parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    return options


def _missing(device: str) -> str:
    """What is not here and what to do, in one line; empty when nothing is missing."""
    packages = ", ".join(module for module in NEEDED if find_spec(module) is None)
    missing = [f"{packages} (install, or put the unpacked wheels on PYTHONPATH)"] if packages else []
    if device == "cuda" and find_spec("torch") is not None:
        import torch

        if not torch.cuda.is_available():
            what = f"an NVIDIA GPU, and torch {torch.__version__} finds none"
            missing.append(f"{what} (check nvidia-smi, CUDA_VISIBLE_DEVICES, and torch.version.cuda)")
    return "; ".join(missing)


def _gpus() -> tuple[dict[str, str], ...]:
    """The GPUs as nvidia-smi describes them."""
    command = ("nvidia-smi", f"--query-gpu={_GPU_FACTS}", "--format=csv")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ()
    return tuple(csv.DictReader(done.stdout.splitlines(), skipinitialspace=True))


def _line(check: "GpuCheck") -> str:
    """One check for people; those that were skipped for the same reason have the same line."""
    name = "" if check.outcome == "skipped" else f" {check.check}"
    reason = f": {check.reason.splitlines()[0]}" if check.reason else ""
    numbers = [f"{n} {v:.4g}" for n, v in check.measured.items() if isinstance(v, float) and n != "limit"]
    return f"{check.outcome:7} {check.group}{name}{reason}  {', '.join(numbers)}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
