"""The page's server: a socket, a token, and uvicorn between them and the app."""

import secrets
import socket
from dataclasses import dataclass

import uvicorn

from reidexport.errors import InputError
from reidexport.gallery.web.app import page_app
from reidexport.gallery.web.guard import Guard
from reidexport.gallery.web.searcher import MAX_MATCHES, Searcher

_STOPPING_S = 5  # for requests under way


@dataclass(frozen=True)
class PageServer:
    """A server that is already listening.

    Attributes:
        url: what to open, with the token.
        is_local: whether only this machine can reach it.
    """

    url: str
    is_local: bool
    uvicorn_server: uvicorn.Server
    listening: socket.socket

    def run(self) -> None:
        """Answer until interrupted, or :meth:`stop` is called from another thread."""
        with self.listening:
            self.uvicorn_server.run(sockets=[self.listening])

    def stop(self) -> None:
        """Let :meth:`run` end, soon."""
        self.uvicorn_server.should_exit = True


def page_server(
    searcher: Searcher, name: str, *, host: str = "127.0.0.1", port: int = 8000, num_matches: int = 10
) -> PageServer:
    """Listen for browsers, who must have the token that is in the URL.

    Args:
        searcher: what to search.
        name: what to call the gallery.
        host: a name or an address of this machine; anything but a local one opens the page to others.
        port: 0 for any that is free.
        num_matches: how many images the page asks for at first.

    Raises:
        InputError: there is no such host, the port is taken, or ``num_matches`` is out of range.
    """
    if not 1 <= num_matches <= MAX_MATCHES:
        raise InputError(f"The page shows 1 to {MAX_MATCHES} matches, not {num_matches}.")
    listening = _listening_socket(host, port)
    address, port = listening.getsockname()[:2]
    token = secrets.token_urlsafe(32)
    config = uvicorn.Config(
        Guard(page_app(searcher, name, num_matches), token=token, host=host, port=port),
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_STOPPING_S,
    )
    if address in ("0.0.0.0", "::"):  # noqa: S104 - asked for
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    is_local = address == "::1" or address.startswith("127.")
    return PageServer(f"http://{shown}:{port}/?token={token}", is_local, uvicorn.Server(config), listening)


def _listening_socket(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # asyncio turns Nagle's algorithm off, which costs 40 ms an answer, only where the protocol is named.
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(
            f"--host {host}: {error.strerror}. Use a name or address of this machine."
        ) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        raise InputError(
            f"{host}:{port}: cannot listen there ({error.strerror}). Choose another --port, 0 for any, or --host."
        ) from error
    return listening
