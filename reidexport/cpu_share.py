"""How much of the CPU time do other processes take while something is measured?

A load average is that of the last minute: it blames a measurement for the one before it. This counts, over the very
time of a measurement, what the CPUs of this process did, and subtracts what this process and its children did.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

from reidexport.machine import MachineInfo, is_busy

_OTHERS_SHARE = 0.1  # of the CPU time during a measurement; above that it was disturbed
_PROC = Path("/proc")
_BUSY_COLUMNS = (0, 1, 2, 5, 6, 7)  # of /proc/stat: user, nice, system, irq, softirq, steal
_CLOCK_TICKS_OF_ERROR = 2  # per CPU: both counts are in ticks


class CpuUse(NamedTuple):
    """Clock ticks since the start of the machine, of all processes and of this one with its children."""

    everyones: int
    own: int
    cpus: int
    at_s: float


def cpu_use() -> CpuUse | None:
    """What has been used up to now on the CPUs that this process may use; None where the system does not say."""
    try:
        cpus = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        lines = (line.split() for line in (_PROC / "stat").read_text().splitlines())
        everyones = sum(
            int(line[1 + column]) for line in lines if line[0] in cpus for column in _BUSY_COLUMNS
        )
    except (AttributeError, OSError, IndexError):
        return None
    return CpuUse(everyones, _own_ticks(), len(cpus), time.perf_counter()) if everyones else None


def others_share(before: CpuUse | None, after: CpuUse | None) -> float | None:
    """Other processes' share of the CPU time between two readings, 0 to 1; None where a reading is missing."""
    if before is None or after is None:
        return None
    all_ticks = (after.at_s - before.at_s) * os.sysconf("SC_CLK_TCK") * after.cpus
    others = (after.everyones - before.everyones) - (after.own - before.own)
    error = _CLOCK_TICKS_OF_ERROR * after.cpus
    return round(min(max(others - error, 0) / all_ticks, 1.0), 3)


def disturbance(share: float | None, machine: MachineInfo) -> str | None:
    """What else the machine was doing, in words, if it was too much for a ratio.

    Args:
        share: from :func:`others_share`, over the measurement.
        machine: before the first measurement; its load counts where the share is not known.
    """
    if share is not None:
        return f"other processes used {share:.0%} of the CPU time" if share > _OTHERS_SHARE else None
    if is_busy(machine):
        return f"the load was {machine['load_average']} before the first measurement"
    return None


def _own_ticks() -> int:
    """Of this process and all below it; a finished child's are in its parent's account."""
    ticks: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for folder in _PROC.glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        children.setdefault(int(fields[1]), []).append(int(folder.name))
        ticks[int(folder.name)] = sum(map(int, fields[11:15]))
    total, family = 0, [os.getpid()]
    while family:
        member = family.pop()
        total += ticks.get(member, 0)
        family += children.get(member, [])
    return total
