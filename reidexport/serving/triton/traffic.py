"""The requests that are under way, and how long each may take."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from reidexport.errors import ServerError

STOPPING = "The server is stopping and takes no more requests."
ANSWER_TIMEOUT_S = 300.0  # for Triton, of one request


class Traffic:
    """Counts requests from when they are complete until they are answered, and refuses them from a moment on.

    Attributes:
        num_answered: how many there were.
        stopping: whether new ones are refused.
    """

    def __init__(self) -> None:
        self.num_answered = 0
        self.stopping = False
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def accepted(self) -> Iterator[None]:
        """Around the answering of a request; raises ServerError where it is refused, as the server is stopping."""
        if self.stopping:
            raise ServerError(STOPPING)
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            self.num_answered += 1
            if not self._under_way:
                self._idle.set()

    async def finish(self) -> None:
        """Refuse new requests, and return when those under way are answered."""
        self.stopping = True
        await self._idle.wait()
