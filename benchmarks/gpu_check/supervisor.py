"""Gives every group a process and a part of the time, and ends what does not end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import Thread

from benchmarks.gpu_check.deadline import Deadline
from benchmarks.gpu_check.groups import GROUPS, Group
from benchmarks.gpu_check.outcome import OUT_OF_TIME, Outcome
from benchmarks.gpu_check.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
# A worker is to stop by itself that long before it is ended.
_GRACE_S = 8.0
_NUM_LOG_LINES = 5


def run_groups(
    settings: Settings,
    deadline: Deadline,
    *,
    groups: tuple[Group, ...] = GROUPS,
    say: Callable[[Outcome], None] = lambda _: None,
) -> list[Outcome]:
    """All groups, one after the other.

    Args:
        settings: what to check.
        deadline: when everything must be over, whatever happens.
        groups: what to do.
        say: called with every outcome as it comes.

    Returns:
        Every outcome; a group that was not begun is one that is skipped.
    """
    outcomes: list[Outcome] = []

    def keep(outcome: Outcome) -> None:
        outcomes.append(outcome)
        say(outcome)

    for group in groups:
        if not deadline.has(group.least_s):
            keep(Outcome(group.name, "all steps", "skipped", reason=OUT_OF_TIME))
            continue
        run_group(group, settings, min(group.limit_s, deadline.remaining_s), keep)
    return outcomes


def run_group(group: Group, settings: Settings, limit_s: float, say: Callable[[Outcome], None]) -> None:
    """One group in its own process, which is ended after ``limit_s`` seconds."""
    reading, writing = os.pipe()
    log = settings.file(f"{group.name}.log")
    seconds = max(limit_s - _GRACE_S, limit_s / 2)
    command = (
        sys.executable, "-m", "benchmarks.gpu_check.worker",
        group.name, group.function, str(writing), str(seconds), json.dumps(asdict(settings)),
    )  # fmt: skip
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            pass_fds=(writing,),
            cwd=ROOT,
            env=environment(group, settings),
            start_new_session=True,  # so that what it started can be ended with it
        )
    os.close(writing)
    begun: list[tuple[str, str]] = []
    reader = Thread(target=_read, args=(reading, begun, say))
    reader.start()
    timed_out = False
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        timed_out = True
    finally:
        _end(process)
    reader.join()
    if timed_out or process.returncode != 0:
        _say_how_it_ended(group, process.returncode, limit_s if timed_out else None, begun, log, say)


def environment(group: Group, settings: Settings) -> dict[str, str]:
    """The worker's: the checkout is importable, and the GPU visible only to those who may use it."""
    paths = (str(ROOT), str(ROOT / "engines" / "python"), os.environ.get("PYTHONPATH", ""))
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if not group.uses_gpu or settings.device == "cpu":
        found["CUDA_VISIBLE_DEVICES"] = ""
    return found


def _read(reading: int, begun: list[tuple[str, str]], say: Callable[[Outcome], None]) -> None:
    """Pass outcomes on; ``begun`` holds the step that is under way."""
    with os.fdopen(reading) as lines:
        for line in lines:
            try:
                content = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line in which the worker was ended
            if "begun" in content:
                subject, step = content["begun"]
                begun[:] = [(subject, step)]
            else:
                begun.clear()
                say(Outcome(**content["outcome"]))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process with everything that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _say_how_it_ended(
    group: Group,
    status: int,
    limit_s: float | None,
    begun: list[tuple[str, str]],
    log: Path,
    say: Callable[[Outcome], None],
) -> None:
    said = log.read_text(errors="replace").splitlines()[-_NUM_LOG_LINES:]
    how = (
        f"did not end within {limit_s:.0f} s"
        if limit_s
        else f"its process ended with status {status}: {' | '.join(said)}"
    )
    for subject, step in begun or [(group.name, "all steps")]:
        say(Outcome(subject, step, "failed", reason=how))
    if begun:
        say(Outcome(group.name, "later steps", "skipped", reason="the group's process had ended"))
