"""Records about machines: what ``make gpu-check`` measured, and what ``reidexport doctor`` found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from reidexport.machine import MachineInfo
from reidexport.records.base import Measurement, Record, RecordPart

Level = Literal["ok", "note", "problem"]
Outcome = Literal["passed", "failed", "skipped"]


class GpuCheck(RecordPart):
    """One check of a group: its outcome, and what it measured."""

    group: str
    check: str
    outcome: Outcome
    reason: str = ""
    seconds: float | None = None
    measured: dict[str, Any] = Field(default_factory=dict)


class GpuCheckRecord(Measurement):
    """What a GPU showed; ``failures`` says why the whole has not passed, ``not_run`` what no time was left for.

    Attributes:
        device: where the paths ran; "cpu" only tries the checks out.
        quick: whether of a tiny network: its speeds say nothing.
        only: the groups that were chosen; empty: all.
        gpus: as nvidia-smi describes them.
    """

    command: ClassVar[str] = "python -m tests.gpu --json FILE"
    timed_region: ClassVar[str] = (
        "of a caller: from an array to an array; streamed, from files: batch after batch, with reading, copies and "
        "network overlapped; on the GPU: the network alone, by CUDA's events"
    )

    kind: Literal["gpu-check"] = "gpu-check"
    passed: bool
    failures: tuple[str, ...]
    not_run: tuple[str, ...]
    device: Literal["cuda", "cpu"]
    quick: bool
    only: tuple[str, ...]
    seconds: float
    gpus: tuple[dict[str, str], ...]
    checks: tuple[GpuCheck, ...]


@dataclass(frozen=True)
class DetectedGpu:
    """One NVIDIA GPU that CUDA offers to this process; ``compute_capability`` such as "9.0"."""

    name: str
    compute_capability: str
    memory_mib: int


@dataclass(frozen=True)
class NvidiaDriver:
    """NVIDIA's driver.

    Attributes:
        version: such as "580.95.05"; None where it is not known.
        cuda: the newest CUDA that it runs, such as "13.0".
        gpus: those that this process may use.
        problem: why CUDA does not start, or None.
    """

    version: str | None
    cuda: str | None
    gpus: tuple[DetectedGpu, ...]
    problem: str | None = None


@dataclass(frozen=True)
class Finding:
    """One thing found out.

    Attributes:
        level: "ok", "note" (something could be better) or "problem" (something does not work).
        topic: what it is about, in a word or two.
        text: what was found.
        advice: the command or change that helps, or "".
    """

    level: Level
    topic: str
    text: str
    advice: str = ""


class Examination(Record):
    """The facts about a machine, and what was found about them.

    Attributes:
        healthy: whether no finding is a problem.
        machine: processor, memory and system.
        features: instruction sets that matter to networks.
        python: its version.
        driver: NVIDIA's, or None.
        packages: installed versions by name.
        torch_cuda: the CUDA that the installed torch was built for, or None.
        findings: what there is to say.
    """

    command: ClassVar[str] = "reidexport doctor --json FILE"

    kind: Literal["doctor"] = "doctor"
    healthy: bool
    machine: MachineInfo
    features: tuple[str, ...]
    python: str
    driver: NvidiaDriver | None
    packages: Mapping[str, str]
    torch_cuda: str | None
    findings: tuple[Finding, ...]
