"""``python -m tests.fuzz [--seconds N] [--out FOLDER] [TARGET...]``: each target for so long; by default all.

A folder of inputs for each target grows below ``--out``, beginning with whole files and what is committed in
``corpus``. Findings come into ``--out``, too. Exit status: 0 no finding; 1 findings, which are listed.
"""

import re
import subprocess
import sys
import time
from argparse import ArgumentParser
from pathlib import Path

from tests.fuzz.targets import TARGETS

_LIMITS = ["-rss_limit_mb=2048", "-timeout=10", "-len_control=0", "-print_final_stats=1"]


def main() -> int:
    """Fuzz; returns the exit status."""
    parser = ArgumentParser("tests.fuzz", description="Fuzz the readers.")
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument(
        "--out", type=Path, default=Path("fuzz"), help="for inputs and findings; default: fuzz"
    )
    options = parser.parse_args()
    if unknown := set(options.targets) - TARGETS.keys():
        parser.error(f"no target {min(unknown)}")
    names = options.targets or list(TARGETS)
    # A process of its own: its memory would count as the fuzzers'.
    subprocess.run([sys.executable, "-m", "tests.fuzz.seeds", options.out, *names], check=True)
    found = []
    print(f"{'target':16} {'inputs':>9} {'seconds':>8} {'edges':>7} {'kept':>6} {'MiB':>6}")
    for name in names:
        found += _fuzz(name, options.out / name, options.seconds)
    for path in found:
        print(f"finding: {path}")
    return 1 if found else 0


def _fuzz(name: str, corpus: Path, seconds: int) -> list[Path]:
    """Run one target; returns the inputs that are findings, which lie beside its corpus with the fuzzer's output."""
    findings, log = Path(f"{corpus}-findings"), Path(f"{corpus}.log")
    findings.mkdir(exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.fuzzer",
        name,
        findings,
        *_LIMITS,
        f"-max_total_time={seconds}",
    ]
    began = time.monotonic()
    with log.open("wb") as output:
        subprocess.run(
            [*command, f"-artifact_prefix={findings}/", corpus], stdout=output, stderr=output, check=False
        )
    text = log.read_text(errors="replace")

    def last(pattern: str) -> str:
        return (re.findall(pattern, text) or ["?"])[-1]

    units, mib = last(r"number_of_executed_units: *(\d+)"), last(r"peak_rss_mb: *(\d+)")
    edges, kept, took = last(r"cov: (\d+)"), len(list(corpus.iterdir())), time.monotonic() - began
    print(f"{name:16} {units:>9} {took:8.0f} {edges:>7} {kept:6} {mib:>6}", flush=True)
    return [path for path in sorted(findings.iterdir()) if path.suffix != ".txt"]


if __name__ == "__main__":
    sys.exit(main())
