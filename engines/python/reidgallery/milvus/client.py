"""Milvus itself: where it is, how to connect, and its refusals as errors of ours."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakSet

from reidruntime.errors import InputError, NotInstalledError

_clients: defaultdict[Path, WeakSet[Any]] = defaultdict(WeakSet)  # of each file, in this process


def is_file(address: str) -> bool:
    """Whether milvus-lite keeps it in a file, rather than a server."""
    return "://" not in address


def connect(address: str, token: str, is_new_allowed: bool) -> Any:
    """A client of pymilvus; ``is_new_allowed``: make the file where it is missing.

    Raises:
        InputError: the address is not of a known form, nobody answers, or another program has the file open.
        NotInstalledError: pymilvus or milvus-lite is not installed.
    """
    if is_file(address) and not address.endswith(".db"):
        raise InputError(f"{address}: expected a name that ends in .db, or http://HOST:PORT.")
    if is_file(address) and not (is_new_allowed or Path(address).exists()):
        raise InputError(f"{address}: there is no such file.")
    try:
        import pymilvus

        if is_file(address):
            import milvus_lite  # noqa: F401
    except ImportError as error:
        raise NotInstalledError(f'{error.name} is not installed: pip install "reidexport[milvus]"') from error
    try:
        client = pymilvus.MilvusClient(address, token=token)
    except pymilvus.MilvusException as error:
        hint = "Does another program have it open?" if is_file(address) else "Is the address right?"
        raise InputError(f"{address}: cannot be opened ({error.message}). {hint}") from error
    if is_file(address):
        _clients[Path(address).resolve()].add(client)
    return client


def disconnect(client: Any, address: str) -> None:
    """Leave the server; or the file, which is closed when no client of this process is in it any more."""
    with refusals_as_errors(address):
        client.close()
    if is_file(address):
        from milvus_lite import server_manager_instance

        others = _clients[Path(address).resolve()]
        others.discard(client)
        if not others:
            server_manager_instance.release_server(address)


@contextmanager
def refusals_as_errors(address: str) -> Iterator[None]:
    """Turn what Milvus refuses into an InputError."""
    from pymilvus import MilvusException

    try:
        yield
    except MilvusException as error:
        raise InputError(f"{address}: Milvus refuses: {error.message}") from error
