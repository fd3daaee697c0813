"""Compiled kernels, where numba is installed."""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any


def compiled(function: Callable[..., Any], *, fastmath: set[str] | bool = False) -> Any:
    """A function as machine code that releases the interpreter lock; ``fastmath`` as numba takes it.

    The machine code is kept on disk until the function's own file changes: who changes a function that is called from
    another file touches that, too.
    """
    import numba

    try:
        return numba.njit(nogil=True, cache=True, fastmath=fastmath)(function)
    except RuntimeError:  # no folder is writable: neither the install folder nor the user's cache
        return numba.njit(nogil=True, fastmath=fastmath)(function)


@cache
def kernel_module(name: str) -> ModuleType | None:
    """A module of numba kernels, or None where numba is not installed; late, as that takes a while."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        return None
