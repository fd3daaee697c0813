"""How much time is left."""

import time
from collections.abc import Callable


class Deadline:
    """A point in time, some seconds after its making."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._end = clock, clock() + seconds

    @property
    def remaining_s(self) -> float:
        """Seconds until then; 0 when it is past."""
        return max(self._end - self._clock(), 0.0)

    def at_most(self, seconds: float) -> "Deadline":
        """This one, or an earlier one in that many seconds."""
        return Deadline(min(self.remaining_s, seconds), clock=self._clock)

    def has(self, seconds: float) -> bool:
        """Whether that much time is left."""
        return self.remaining_s >= seconds
