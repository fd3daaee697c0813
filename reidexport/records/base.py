"""What all records share."""

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from reidexport.machine import MachineInfo, machine_info, package_versions

# A figure that can be infinite. JSON has no infinity: in a file it is null.
MaybeInfinite = Annotated[
    float,
    Field(allow_inf_nan=True),
    BeforeValidator(lambda value: math.inf if value is None else value),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}]}),
]


class RecordPart(BaseModel):
    """A part of a record."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class Record(RecordPart):
    """What one JSON file holds.

    Attributes:
        kind: which class it is.
        version: of that class; a change that an older program would misread raises it.
    """

    command: ClassVar[str]  # what writes it

    kind: str
    version: Literal[1] = 1


class Measurement(Record):
    """A record of what was measured, and where; ``versions`` are those of Python and of packages."""

    timed_region: ClassVar[str] = ""  # what is inside the times of all of them

    machine: MachineInfo
    versions: dict[str, str]

    @property
    def timed_regions(self) -> tuple[str, ...]:
        """What is inside the times of this one."""
        return (self.timed_region,) if self.timed_region else ()


def here() -> dict[str, Any]:
    """The fields ``machine`` and ``versions`` of a measurement on this machine."""
    return {"machine": machine_info(), "versions": package_versions()}
