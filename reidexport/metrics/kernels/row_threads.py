"""Threads for kernels that release the interpreter lock, as those of :func:`reidruntime.compiled.compiled` do.

Numba's own ``prange`` is not used: with its default threading layer a process dies when two of its threads
are inside one at the same time.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from reidruntime.threads import default_threads

_CHUNKS_PER_THREAD = 4  # so that a thread that got the cheap rows continues with others

OverRows = Callable[[Callable[[int, int], None], int], None]


@contextmanager
def row_threads() -> Iterator[OverRows]:
    """Threads on every CPU of this process.

    Yields:
        A function that calls ``work(begin, end)`` for ranges that make up ``range(num_rows)``, in several
        threads, and returns when all are done.
    """
    num_threads = default_threads()
    with ThreadPoolExecutor(num_threads) as pool:

        def over_rows(work: Callable[[int, int], None], num_rows: int) -> None:
            step = max(1, -(-num_rows // (num_threads * _CHUNKS_PER_THREAD)))
            begins = range(0, num_rows, step)
            list(pool.map(work, begins, [min(begin + step, num_rows) for begin in begins]))

        yield over_rows
