"""Stopping at the next step: on Ctrl-C, on SIGTERM, or when the time is over."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requested(minutes: float | None = None) -> Iterator[Callable[[], bool]]:
    """Catch SIGINT and SIGTERM, and yield a function that returns whether to stop.

    A second signal of the same kind does what it did before.

    Args:
        minutes: stop after this time too.
    """
    deadline = float("inf") if minutes is None else time.monotonic() + 60 * minutes
    requested = False

    def request_stop(number: int, frame: FrameType | None) -> None:
        nonlocal requested
        requested = True
        signal.signal(number, earlier[signal.Signals(number)])

    earlier = {number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: requested or time.monotonic() > deadline
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
