"""``python -m tests.fuzz.fuzzer TARGET FINDINGS [libFuzzer's options] FOLDER...``: one target under atheris.

An exception is a finding, of which the shortest input for each place in the code is kept while the fuzzer continues.
A crash, an input that takes too long and one that takes too much memory end the process.
"""

import os
import sys
import tempfile
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import atheris

MAX_RSS_MIB = 2048
# What parses: its branches tell the fuzzer how far an input came. Compiled kernels stay as they are.
_INSTRUMENTED = ["reidexport", "reidruntime", "reidgallery", "PIL"]
_KERNELS = [
    "reidruntime.images.resize_kernels",
    "reidgallery.scan.topk_kernels",
    "reidexport.metrics.kernels",
]


def main() -> None:
    """Fuzz one target; libFuzzer ends the process."""
    name, findings, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=_INSTRUMENTED, exclude=_KERNELS):
        targets = import_module("tests.fuzz.targets")
        _warm_up(targets, name, Path([each for each in arguments if each[0] != "-"][-1]))
    memory = Path("/dev/shm")  # a file is written for every input
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:

        def one_input(data: bytes) -> None:
            try:
                targets.try_input(name, data, Path(folder))
            except Exception as error:  # noqa: BLE001 - a finding, whatever it is
                frame = traceback.extract_tb(error.__traceback__)[-1]
                _keep(
                    Path(findings), f"{type(error).__name__}-{Path(frame.filename).stem}-{frame.lineno}", data
                )
            if (mib := getrusage(RUSAGE_SELF).ru_maxrss // 1024) > MAX_RSS_MIB:
                _keep(Path(findings), f"memory-{mib}-MiB", data)
                os._exit(1)

        with targets.checksums_off(name):
            # libFuzzer starts itself with its first argument when it merges corpora.
            atheris.Setup([f"{sys.executable} -m {__spec__.name} {name} {findings}", *arguments], one_input)
            atheris.Fuzz()


def _keep(findings: Path, place: str, data: bytes) -> None:
    path = findings / place
    if not path.is_file() or len(data) < path.stat().st_size:
        path.write_bytes(data)
        Path(f"{path}.txt").write_text(traceback.format_exc())


def _warm_up(targets: Any, name: str, corpus: Path) -> None:
    """Read a few inputs, so that everything is imported and compiled: that is not for an input's time."""
    with tempfile.TemporaryDirectory() as folder, targets.checksums_off(name):
        for path in sorted(corpus.iterdir())[:20]:
            with suppress(Exception):
                targets.try_input(name, path.read_bytes(), Path(folder))


if __name__ == "__main__":
    main()
