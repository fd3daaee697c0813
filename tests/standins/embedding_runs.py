"""Runs of ``reidexport embed`` in processes of their own, to be killed."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests import ROOT

Prefix = list[str]


def start_run(prefix: Prefix, artifact: Path, folder: Path, output: str, *more: str) -> subprocess.Popen[str]:
    """``reidexport embed`` with a shard for every image of ``folder/in``, into ``folder/output``."""
    code = "from reidexport.cli import main; main()"
    words = ["embed", str(artifact), str(folder / "in"), "-o", str(folder / output), "--batch", "1"]
    words += ["--backend", "onnxruntime", "--shard-size", "1"]
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", code, *words, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'engines' / 'python'}"},
    )


def wait_for_parts(folder: Path, num_parts: int, driver: subprocess.Popen[str]) -> None:
    """Wait until so many parts exist."""
    deadline = time.monotonic() + 120
    while len(list(folder.glob("part-*.parquet"))) < num_parts:
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
