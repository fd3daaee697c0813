"""Any record, written to a file and read again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from reidexport.errors import InputError
from reidexport.files import replaced_when_whole
from reidexport.records import accuracy, adaptation, checks, demo, embeddings, inspection, speed
from reidexport.records.base import Record

AnyRecord = Annotated[
    accuracy.ParityTable
    | accuracy.Verification
    | accuracy.EvaluationRecord
    | adaptation.AdaptationRecord
    | adaptation.SitesRecord
    | speed.BenchReport
    | speed.Benchmark
    | speed.PrecisionsRecord
    | speed.OverheadRecord
    | speed.ZooRecord
    | speed.ServingRecord
    | checks.GpuCheckRecord
    | embeddings.EmbeddingRun
    | embeddings.SearchRecord
    | inspection.CheckpointDescription
    | inspection.OnnxDescription
    | inspection.EngineDescription
    | inspection.GalleryDescription
    | checks.Examination
    | demo.DemoSummary,
    Field(discriminator="kind"),
]
ANY_RECORD: TypeAdapter[Record] = TypeAdapter(AnyRecord, config=ConfigDict(defer_build=True))
_EXPECTED = "Expected what --json of a command or --results of pytest benchmarks wrote."
_WRITE_AGAIN = "Write it again with this version of reidexport."


def record_text(record: Record) -> str:
    """A record as indented JSON, in ASCII: names of files need not be UTF-8.

    NaN and infinity, which JSON does not have, become null.
    """
    text = json.dumps(record.model_dump(mode="json"))
    return json.dumps(json.loads(text, parse_constant=lambda _: None), indent=2)


def write_record(path: Path | None, record: Record) -> None:
    """Write one record to ``path``, or nothing for None; an old file is replaced only by a whole new one.

    Raises:
        InputError: the file cannot be written.
    """
    if path is not None:
        with replaced_when_whole(path) as temporary:
            temporary.write_text(record_text(record) + "\n", encoding="utf-8")


def check_record_file(path: Path | None) -> Path | None:
    """The path of a record to be written; what is no record is not replaced, but for an empty file.

    Raises:
        InputError: the file exists and holds something else.
    """
    if path is None or not path.is_file() or path.stat().st_size == 0:
        return path
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict) or "kind" not in content:
        raise InputError(f"{path}: exists, and is not the result of a command. Choose another --json FILE.")
    return path


def read_record(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> Record:
    """Read the record that a file holds, whatever its kind.

    Args:
        path: a file that a command wrote.
        change: called with every object in the file, the inner ones first; what it returns takes its place.

    Raises:
        InputError: the file cannot be read, is of no known kind or version, or lacks something.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_hook=change)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). {_EXPECTED}") from error
    except (ValueError, RecursionError) as error:  # nested without end, too
        raise InputError(f"{path}: is not JSON ({error}). {_EXPECTED}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not an object. {_EXPECTED}")
    if "kind" not in content:
        raise InputError(f'{path}: has no "kind". {_EXPECTED} {_WRITE_AGAIN}')
    try:
        return ANY_RECORD.validate_python(content)
    except ValidationError as error:
        raise InputError(f"{path}: {_problem(content, error)}") from error


def _problem(content: dict[str, Any], error: ValidationError) -> str:
    first = error.errors()[0]
    kind, place = content["kind"], ".".join(map(str, first["loc"][1:]))
    if first["type"] == "union_tag_invalid":
        return f"unknown kind {kind!r}. Expected one of {first['ctx']['expected_tags']}."
    if first["type"] == "extra_forbidden":
        return (
            f"{place} is not known of a {kind} record. Read it with the version of reidexport that wrote it."
        )
    if place == "version":
        return f"version {content['version']!r} of {kind!r} is not known. {_WRITE_AGAIN}"
    return f"not a whole {kind} record: {place}: {first['msg'][0].lower()}{first['msg'][1:]}. {_WRITE_AGAIN}"
