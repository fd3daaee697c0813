"""NumPy's products in one thread each, for code that has threads of its own.

A BLAS with more threads lets them wait busily after each product, where they take the CPUs from whoever comes next.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock

from threadpoolctl import ThreadpoolController

_controller = cache(ThreadpoolController)  # looks through the libraries of the process, which takes a while
_lock = Lock()
_num_users = 0
_limit = None


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """One thread for every product of this process; the last to leave restores what the first one found."""
    global _num_users, _limit
    with _lock:
        if _num_users == 0:
            _limit = _controller().limit(limits=1, user_api="blas")
        _num_users += 1
    try:
        yield
    finally:
        with _lock:
            _num_users -= 1
            if _num_users == 0 and _limit is not None:
                _limit.restore_original_limits()
