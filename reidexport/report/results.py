"""The JSON files that the commands write: read, told apart, and checked."""

import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, PositiveFloat, ValidationError

from reidexport.errors import InputError

# The folders of the machine that wrote a file are nobody's business.
FileName = Annotated[str, AfterValidator(lambda path: PurePath(path).name)]
# Files inside a data set keep the folders below it.
ImageName = Annotated[
    str, AfterValidator(lambda path: PurePath(path).name if PurePath(path).is_absolute() else path)
]
# A kernel is updated, and the machine stays the same: "Linux 6.1.0 x86_64" -> "Linux x86_64".
System = Annotated[
    str, AfterValidator(lambda text: " ".join(dict.fromkeys((*text.split()[:1], *text.split()[-1:]))))
]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Machine(_Record):
    """As :func:`reidexport.machine.machine_info` describes it, less its load at the time and its kernel's version."""

    cpu: str
    cores: int
    memory_mib: int | None = None
    gpus: tuple[str, ...] = ()
    system: System = ""


class Ranks(_Record):
    """Accuracies as fractions."""

    rank1: float
    rank5: float
    rank10: float
    mAP: float
    mINP: float


class OperatingPointRecord(_Record):
    """A threshold on the distance, and the shares that it lets pass of other people's and of one person's pairs."""

    fpr: float
    tpr: float
    threshold: float | None
    num_false: int | None = None


class Roc(_Record):
    """Shares of true and false pairs under one threshold after another."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]


class WorstQueryRecord(_Record):
    """A query that lost average precision, in percentage points."""

    image: ImageName
    reference_rank: int | None
    candidate_rank: int | None
    ap_drop: float | None


class ParityRowRecord(Ranks):
    """One artifact on one backend, and what it lost against the reference, in percentage points."""

    artifact: FileName
    backend: str
    precision: str
    size_mib: float | None = None
    layer_precisions: dict[str, int] = {}
    drops: dict[str, float] = {}
    min_cosine: float
    worst_queries: tuple[WorstQueryRecord, ...] = ()
    p50_batch1_ms: float | None = None
    images_per_s: float | None = None
    operating_points: tuple[OperatingPointRecord, ...] = ()
    roc: Roc | None = None
    warnings: tuple[str, ...] = ()

    @property
    def runs_in(self) -> str:
        """What it computes in and what runs it."""
        return f"{self.precision} · {self.backend}"


class Spread(_Record):
    """The median of several rounds, with the lowest and the highest."""

    median: float
    lowest: float
    highest: float


class Ratio(Spread):
    """A spread that has a place on a logarithmic axis."""

    median: PositiveFloat
    lowest: PositiveFloat
    highest: PositiveFloat


class BenchmarkRow(_Record):
    """One comparison: seconds or MiB of each side, and how many times ours each peer takes, or why that is not said."""

    name: str
    timed: str
    seconds: dict[str, Spread] = {}
    peak_mib: dict[str, Spread] = {}
    ratios: dict[str, Ratio] | str = {}
    artifact: FileName | None = None
    backend: str | None = None
    precision: str | None = None
    batch_size: int | None = None
    images_per_s: float | None = None
    limit_images_per_s: float | None = None
    share_of_limit: float | None = None


class BatchTimingRecord(_Record):
    """The network alone at one batch size."""

    batch_size: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_s: float


class EndToEndRecord(_Record):
    """From image files to features, beside the network alone."""

    batch_size: int
    images_per_s: float
    share_of_net: float


class Precision(_Record):
    """One precision of a checkpoint; with accuracies where a data set was given."""

    name: str
    size_mib: float
    layer_precisions: dict[str, int]
    rank1: float | None = None
    mAP: float | None = None
    drops: dict[str, float] = {}


class PrecisionSpeed(_Record):
    """One precision on one runtime at one batch size, beside torch eager."""

    batch_size: int
    precision: str
    runtime: str
    p50_ms: float
    images_per_s: float
    times_torch: PositiveFloat
    times_torch_range: tuple[PositiveFloat, PositiveFloat]


class Result(_Record):
    """What every file says.

    Attributes:
        file: its name, as the report shows it.
        machine_number: of its machine, from 1, where a report has several.
    """

    file: str = ""
    machine: Machine | None = None
    machine_number: int | None = None
    versions: dict[str, str] = {}


ResultT = TypeVar("ResultT", bound=Result)


class NotRunRecord(_Record):
    """An artifact that a backend could not run, and why."""

    artifact: FileName
    backend: str
    reason: str


class ParityResult(Result):
    """Of ``reidexport parity``."""

    kind: Literal["parity"]
    dataset: str
    metric: str
    reference: ParityRowRecord
    rows: tuple[ParityRowRecord, ...]
    not_run: tuple[NotRunRecord, ...] = ()
    is_busy: bool = False

    @property
    def all_rows(self) -> tuple[ParityRowRecord, ...]:
        """The reference, then the artifacts."""
        return (self.reference, *self.rows)


class BenchmarkResult(Result):
    """Of ``pytest benchmarks``: the rows of one question."""

    kind: Literal["benchmark"]
    question: str
    rows: tuple[BenchmarkRow, ...]
    is_busy: bool = False


class EvalResult(Result, Ranks):
    """Of ``reidexport eval``."""

    artifact: FileName
    dataset: str
    metric: str
    rerank: bool = False
    operating_points: tuple[OperatingPointRecord, ...] = ()
    roc: Roc | None = None
    warnings: tuple[str, ...] = ()


class VerifyResult(Result):
    """Of ``reidexport verify``."""

    artifact: FileName
    num_images: int
    min_cosine: float
    max_relative_l2: float
    top1_agreement: float | None = None
    drops: dict[str, float] | None = None
    failures: tuple[str, ...]
    passed: bool


class BenchResult(Result):
    """Of ``reidexport bench``."""

    artifact: FileName
    batches: tuple[BatchTimingRecord, ...]
    end_to_end: EndToEndRecord | None = None
    warnings: tuple[str, ...] = ()


class PrecisionsResult(Result):
    """Of ``python -m benchmarks.precisions``; ``disturbed`` says why batch sizes are left out of ``speed``."""

    checkpoint: FileName
    architecture: str
    precisions: tuple[Precision, ...]
    speed: tuple[PrecisionSpeed, ...]
    disturbed: dict[int, str] = {}
    timed: str


class OverheadResult(Result):
    """Of ``reid_overhead``: the C++ runtime beside the bare network."""

    artifact: FileName
    batch_size: int
    bare_p50_ms: float
    reid_embed_p50_ms: float
    overhead: float
    overhead_of_rounds: tuple[float, ...]


class Served(_Record):
    """What the clients of a server got, and how fast."""

    p50_ms: float
    p99_ms: float
    images_per_s: Spread


class AnswersRecord(_Record):
    """How many requests were answered, and how many of the answers were the session's own, to the bit."""

    num_requests: int
    num_answered: int
    num_bit_equal: int


class ServingResult(Result):
    """Of ``python -m benchmarks.serving``: a server under load, beside the session without it."""

    kind: Literal["serving"]
    artifact: FileName
    timed: str
    num_clients: int
    batch_size: int
    served: Served
    share_of_direct: Spread
    answers: AnswersRecord
    disturbed: str | None = None


class GpuCheck(_Record):
    """One check of a group: its outcome, and what it measured."""

    group: str
    check: str
    outcome: Literal["passed", "failed", "skipped"]
    reason: str = ""
    measured: dict[str, Any] = {}


class GpuCheckResult(Result):
    """Of ``make gpu-check``; ``failures`` says why the whole has not passed."""

    kind: Literal["gpu-check"]
    failures: tuple[str, ...]
    quick: bool
    checks: tuple[GpuCheck, ...]


_MODELS_BY_KIND: dict[str, type[Result]] = {
    "parity": ParityResult,
    "benchmark": BenchmarkResult,
    "serving": ServingResult,
    "gpu-check": GpuCheckResult,
}
# Files without a "kind" are told apart by keys that no other has.
_MODELS_BY_KEYS: dict[tuple[str, ...], type[Result]] = {
    ("candidate", "reference", "failures"): VerifyResult,
    ("rank1", "runtime"): EvalResult,
    ("session", "batches"): BenchResult,
    ("precisions", "speed"): PrecisionsResult,
    ("bare_p50_ms", "reid_embed_p50_ms"): OverheadResult,
}
_EXPECTED = (
    "Expected what --json of reidexport parity, eval, verify or bench, of a program of benchmarks or of reid_overhead "
    "wrote, or --results of pytest benchmarks."
)


def read_results(paths: Sequence[Path]) -> list[Result]:
    """Read result files; of a folder, every ``*.json`` in it and below it.

    Raises:
        InputError: a file cannot be read, is of no known kind or lacks something, or a folder holds none.
    """
    return [_read_result(file, name) for path in paths for file, name in _named_files(path)]


def of_type(results: Sequence[Result], model: type[ResultT]) -> list[ResultT]:
    """Those of the results that are of one kind."""
    return [result for result in results if isinstance(result, model)]


def _named_files(path: Path) -> list[tuple[Path, str]]:
    """Files, each with the name that the report gives it: relative to the folder, if ``path`` is one."""
    if not path.is_dir():
        return [(path, path.name)]
    found = sorted(path.rglob("*.json"))
    if not found:
        raise InputError(f"{path}: the folder holds no *.json. {_EXPECTED}")
    return [(file, file.relative_to(path).as_posix()) for file in found]


def _read_result(path: Path, name: str) -> Result:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). {_EXPECTED}") from error
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error}). {_EXPECTED}") from error
    model = _model_of(path, content)
    try:
        return model.model_validate({**content, "file": name})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        kind = " ".join(re.findall("[A-Z][a-z]+", model.__name__)).lower()
        raise InputError(
            f"{path}: not a whole {kind}: {place}: {first['msg'][0].lower()}{first['msg'][1:]}. "
            "Write it again with this version of reidexport."
        ) from error


def _model_of(path: Path, content: Any) -> type[Result]:
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not an object. {_EXPECTED}")
    if "kind" in content:
        if model := _MODELS_BY_KIND.get(str(content["kind"])):
            return model
        known = ", ".join(_MODELS_BY_KIND)
        raise InputError(f"{path}: unknown kind {content['kind']!r}. Expected one of {known}.")
    for keys, model in _MODELS_BY_KEYS.items():
        if content.keys() >= set(keys):
            return model
    raise InputError(f"{path}: is not a result. {_EXPECTED}")
