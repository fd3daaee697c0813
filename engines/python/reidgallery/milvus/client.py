"""Milvus itself: where it is, how to connect, and its refusals as errors of ours."""

from collections import defaultdict
from pathlib import Path
from typing import Any
from weakref import WeakSet

from reidruntime.errors import InputError, NotInstalledError

_open_files: defaultdict[Path, "WeakSet[Client]"] = defaultdict(WeakSet)  # by this process


def is_file(address: str) -> bool:
    """Whether milvus-lite keeps it in a file, rather than a server."""
    return "://" not in address


class Client:
    """A client of pymilvus, with its methods; what Milvus refuses is an InputError."""

    def __init__(self, address: str, token: str, is_new_allowed: bool) -> None:
        """Connect; ``is_new_allowed``: make the file where it is missing.

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
            raise NotInstalledError(
                f'{error.name} is not installed: pip install "reidexport[milvus]"'
            ) from error
        self.address = address
        try:
            self._client = pymilvus.MilvusClient(address, token=token)
        except pymilvus.MilvusException as error:
            hint = "Does another program have it open?" if is_file(address) else "Is the address right?"
            raise InputError(f"{address}: cannot be opened ({error.message}). {hint}") from error
        if is_file(address):
            _open_files[Path(address).resolve()].add(self)

    def __getattr__(self, name: str) -> Any:
        from pymilvus import MilvusException

        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            try:
                return method(*arguments, **options)
            except MilvusException as error:
                raise InputError(f"{self.address}: Milvus refuses: {error.message}") from error

        return call

    def disconnect(self) -> None:
        """Leave the server; or the file, which is closed when no client of this process is in it any more."""
        self.close()
        if is_file(self.address):
            from milvus_lite import server_manager_instance

            others = _open_files[Path(self.address).resolve()]
            others.discard(self)
            if not others:
                server_manager_instance.release_server(self.address)
