"""Who may see the page: those who have its token, from the page's own address, and nobody's other page."""

import ipaddress
import secrets
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    # Nothing but the page's own files, and the uploaded image.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",  # other pages of this machine are of another port
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",  # people are not to stay in the browser's cache
}


class Guard:
    """Lets requests through to the app that come from its own page, by a browser that was given the token.

    The token comes in the address, once, and from then on in a cookie that no script reads and no other site sends.
    """

    def __init__(self, app: ASGIApp, *, token: str, host: str, port: int) -> None:
        """Guard an app.

        Args:
            app: what to guard.
            token: a secret.
            host: the name or address that the server listens at.
            port: where it listens; cookies do not tell ports apart, so it is in the cookie's name.
        """
        self._app, self._token = app, token
        self._cookie = f"reidexport-{port}"
        self._names = {"localhost", host.lower(), socket.gethostname().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it before anything of its body is read."""
        if scope["type"] != "http":
            return
        request = Request(scope)
        brings_token = scope["path"] == "/" and self._is_token(request.query_params.get("token", ""))

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                outgoing = MutableHeaders(scope=message)
                outgoing.update(_HEADERS)
                if brings_token:
                    outgoing["Set-Cookie"] = (
                        f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
                    )
            await send(message)

        answering = self._app
        if not self._is_own(request.headers):
            answering = _refusal("This address is not the page's own. Open the one that reidexport printed.")
        elif not (brings_token or self._is_token(request.cookies.get(self._cookie, ""))):
            answering = _refusal("Open the address that reidexport printed: it ends in ?token=…")
        await answering(scope, receive, send_guarded)

    def _is_own(self, headers: Headers) -> bool:
        """Whether the browser asked for an address of ours, from our page or from none.

        A name that somebody's DNS server turned into this machine's address is not one of ours.
        """
        host = headers.get("host", "")
        if headers.get("origin", f"http://{host}") not in (f"http://{host}", f"https://{host}"):
            return False
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name not in self._names:
                ipaddress.ip_address(name)
        except ValueError:  # neither a name of ours nor an address
            return False
        return True

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(), self._token.encode())


def _refusal(text: str) -> HTMLResponse:
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Not here</title><p>{text}</p></html>',
        status_code=403,
    )
