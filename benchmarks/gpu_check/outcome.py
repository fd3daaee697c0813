"""What became of one step: a check, or a measurement."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["passed", "failed", "skipped", "measured"]
Values = dict[str, Any]

OUT_OF_TIME = "out of time"


@dataclass(frozen=True)
class Outcome:
    """One line of the result.

    Attributes:
        subject: what was looked at, such as "TensorRT fp16".
        step: what was asked of it, such as "parity".
        status: "measured" is a measurement that was made; one that was not is skipped or failed.
        seconds: how long it took.
        reason: why it failed or was skipped.
        values: what was found, with the limits that it was judged by.
    """

    subject: str
    step: str
    status: Status
    seconds: float = 0.0
    reason: str = ""
    values: Values = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """One plain dict."""
        return asdict(self)


class StepFailedError(Exception):
    """What was found is not what must be; ``values`` is what was found."""

    def __init__(self, reason: str, values: Values | None = None) -> None:
        super().__init__(reason)
        self.values = values or {}


class StepSkippedError(Exception):
    """The step cannot be done here, for the reason in the message."""


def within(found: dict[str, float], limits: dict[str, float]) -> Values:
    """The values and their limits, if none is above its own.

    Args:
        found: by name; not a number counts as above.
        limits: the largest allowed value of some of them.

    Raises:
        StepFailedError: a value is above; the message names it.
    """
    values: Values = {**found, "limits": limits}
    above = [
        f"{name} is {found[name]:.3g}, allowed {limit:.3g}"
        for name, limit in limits.items()
        if not found[name] <= limit
    ]
    if above:
        raise StepFailedError("; ".join(above), values)
    return values
