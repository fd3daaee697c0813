"""Steps one after the other, until the time is over; a step that breaks does not stop the next."""

import time
from collections.abc import Callable
from typing import TypeVar

from reidruntime.errors import NotInstalledError

from benchmarks.gpu_check.deadline import Deadline
from benchmarks.gpu_check.outcome import (
    OUT_OF_TIME,
    Outcome,
    Status,
    StepFailedError,
    StepSkippedError,
    Values,
)

T = TypeVar("T")


class Bench:
    """Does steps and says what became of each.

    Attributes:
        deadline: a step whose estimate does not fit before it is skipped.
    """

    def __init__(
        self,
        deadline: Deadline,
        *,
        say: Callable[[Outcome], None],
        announce: Callable[[str, str], None] = lambda subject, step: None,
    ) -> None:
        """Start with nothing done.

        Args:
            deadline: when everything must be over.
            say: called with the outcome of every step.
            announce: called with subject and step before it begins.
        """
        self.deadline, self._say, self._announce = deadline, say, announce

    def check(self, subject: str, step: str, estimate_s: float, work: Callable[[], Values]) -> None:
        """Ask something that has a right answer; ``work`` gives what it found, or raises StepFailedError."""
        self._attempt(subject, step, estimate_s, "passed", work, lambda values: values)

    def measure(self, subject: str, step: str, estimate_s: float, work: Callable[[], Values]) -> None:
        """Measure something."""
        self._attempt(subject, step, estimate_s, "measured", work, lambda values: values)

    def opened(self, subject: str, estimate_s: float, work: Callable[[], T]) -> T | None:
        """Open what the next steps need; None where that fails, and then they are left out."""
        return self._attempt(subject, "opens", estimate_s, "passed", work, lambda _: {})

    def _attempt(
        self,
        subject: str,
        step: str,
        estimate_s: float,
        success: Status,
        work: Callable[[], T],
        values_of: Callable[[T], Values],
    ) -> T | None:
        if not self.deadline.has(estimate_s):
            self._say(Outcome(subject, step, "skipped", reason=OUT_OF_TIME))
            return None
        self._announce(subject, step)
        began = time.monotonic()

        def end(status: Status, reason: str = "", values: Values | None = None) -> None:
            self._say(Outcome(subject, step, status, time.monotonic() - began, reason, values or {}))

        try:
            result = work()
        except (StepSkippedError, NotInstalledError) as reason:
            end("skipped", str(reason))
        except ModuleNotFoundError as error:
            end("skipped", f"{error.name} is not installed")
        except StepFailedError as error:
            end("failed", str(error), error.values)
        except Exception as error:  # noqa: BLE001  whatever breaks is a failed step, and the next one is done
            end("failed", f"{type(error).__name__}: {error}")
        else:
            end(success, values=values_of(result))
            return result
        return None
