"""Does memory stay what it was over thousands of calls?"""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu_check.deadline import Deadline
from benchmarks.gpu_check.outcome import OUT_OF_TIME, StepFailedError, StepSkippedError, Values

# What allocators and drivers take in one more block; a leak of 4 KiB a call would be 40 MiB.
DEVICE_LIMIT_MIB, HOST_LIMIT_MIB = 16.0, 32.0
_WARM_UP_CALLS = 200
_LONGEST_S = 45.0
_CALLS_BETWEEN_LOOKS = 50


@dataclass(frozen=True)
class MemoryUse:
    """What is in use; ``device_mib``, of the whole GPU, is None where it is not told."""

    device_mib: float | None
    host_mib: float


def memory_use() -> MemoryUse:
    """Of the GPU as nvidia-smi tells, and the resident memory of this process."""
    from benchmarks.gpu_check.nvidia_smi import query

    pages = int(Path("/proc/self/statm").read_text().split()[1])
    try:
        used = query("memory.used").get("memory.used")
    except (OSError, subprocess.SubprocessError):
        used = None
    return MemoryUse(used if isinstance(used, float) else None, pages * 4096 / 2**20)


def steady_memory(
    call: Callable[[], object],
    num_calls: int,
    deadline: Deadline,
    *,
    look: Callable[[], MemoryUse] = memory_use,
) -> Values:
    """Call something many times, and compare the memory in use after warming up with that at the end.

    Args:
        call: what may leak.
        num_calls: how often, after warming up.
        deadline: by when; fewer calls are no proof, and the step is skipped with what was seen.
        look: tells the memory in use.

    Raises:
        StepFailedError: device or host memory grew by more than its limit, in however many calls.
        StepSkippedError: nothing grew, but there was no time for all calls.
    """
    own = deadline.at_most(_LONGEST_S)
    for _ in range(min(_WARM_UP_CALLS, num_calls)):
        call()
    start, done = look(), 0
    while done < num_calls and (done % _CALLS_BETWEEN_LOOKS or own.remaining_s > 0):
        call()
        done += 1
    values = growth(start, look(), done)
    if done < num_calls:
        raise StepSkippedError(f"{OUT_OF_TIME} after {done} of {num_calls} calls, in which nothing grew")
    return values


def growth(start: MemoryUse, end: MemoryUse, num_calls: int) -> Values:
    """Judge memory before and after.

    Raises:
        StepFailedError: one of them grew by more than its limit.
    """
    device = None
    if start.device_mib is not None and end.device_mib is not None:
        device = end.device_mib - start.device_mib
    host = end.host_mib - start.host_mib
    values: Values = {
        "calls": num_calls,
        "device_mib": [start.device_mib, end.device_mib],
        "host_mib": [start.host_mib, end.host_mib],
        "limits": {"device_growth_mib": DEVICE_LIMIT_MIB, "host_growth_mib": HOST_LIMIT_MIB},
    }
    grown = [
        f"{what} memory grew by {found:.1f} MiB in {num_calls} calls, allowed {limit:.0f}"
        for what, found, limit in (("device", device, DEVICE_LIMIT_MIB), ("host", host, HOST_LIMIT_MIB))
        if found is not None and found > limit
    ]
    if grown:
        raise StepFailedError("; ".join(grown), values)
    return values
