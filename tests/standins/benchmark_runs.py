"""Runs of the benchmarks as a user starts them, and stand-ins for what measurements are given."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from reidruntime import Session

from benchmarks.harness import comparison
from reidexport.machine import machine_info
from tests import ROOT

BURN = "import time; end = time.perf_counter() + {seconds}\nwhile time.perf_counter() < end: pass"


def run_benchmarks(*arguments: object, status: int = 0, **environment: str) -> str:
    """Run them as a user does, and return what they print; fails unless they end with that status."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, arguments)]
    # In a worker of xdist, pytest-benchmark measures nothing.
    unwanted = "OPENBLAS_CORETYPE", "PYTEST_XDIST_WORKER"
    inherited = {name: value for name, value in os.environ.items() if name not in unwanted}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**inherited, **environment})
    printed = done.stdout + done.stderr
    assert done.returncode == status, printed
    return printed


def quick_rows(folder: Path, *arguments: object) -> dict[str, list[dict[str, Any]]]:
    """The rows of a quick run, by question, from the file of pytest-benchmark."""
    run_benchmarks("--quick", *arguments, "--benchmark-json", folder / "benchmark.json")
    found: dict[str, list[dict[str, Any]]] = {}
    for each in json.loads((folder / "benchmark.json").read_text())["benchmarks"]:
        question = Path(each["fullname"].partition("::")[0]).stem.removeprefix("bench_")
        found.setdefault(question, []).append(each["extra_info"])
    return found


@contextmanager
def strangers(count: int, seconds: float) -> Iterator[None]:
    """Processes that keep CPUs busy and, their parent having ended, are nobody's children."""
    burn = f"{sys.executable} -c '{BURN.format(seconds=seconds)}' >&- 2>&- & echo $!"
    shells = [subprocess.run(["sh", "-c", burn], capture_output=True, check=True) for _ in range(count)]
    pids = [int(shell.stdout) for shell in shells]
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, 9)


def turns_of_a_test() -> tuple[Any, dict[str, Any]]:
    """What the fixture ``compare`` is to a measurement, quick, and the row that it fills."""

    def pedantic(target: Callable[[], None], *, setup: Callable[[], None], rounds: int) -> None:
        for _ in range(rounds):
            setup()
            target()

    benchmark = SimpleNamespace(pedantic=pedantic, extra_info={})
    return partial(comparison.compare, benchmark, machine=machine_info(), quick=True), benchmark.extra_info


def taking_tensors(session: Session) -> Any:
    """A stand-in for a session that takes tensors: what it answers is the real session's."""
    return SimpleNamespace(
        manifest=session.manifest,
        precision=session.precision,
        backend="torch-cuda",
        description="a stand-in",
        run=session.run,
        run_tensor=lambda images: torch.from_numpy(session.run(images.numpy())),
    )
