"""Compiled kernels, where numba is installed."""

from functools import cache
from importlib import import_module
from types import ModuleType


@cache
def kernel_module(name: str) -> ModuleType | None:
    """A module of numba kernels, or None where numba is not installed; late, as that takes a while."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        return None
