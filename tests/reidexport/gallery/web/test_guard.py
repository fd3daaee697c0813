"""Who may see the page: those who have the token, at the page's own address."""

import socket

import httpx
import pytest

from tests.reidexport.gallery.web.conftest import Site

PATHS = ["", "gallery", "people", "images/0", "static/page.js", "static/page.css", "docs", "openapi.json"]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_answered_without_the_token(site: Site, path: str) -> None:
    """Neither page nor data, nor to a guess or half of the token; the answer says what to open."""
    port = site.base.rpartition(":")[2].strip("/")
    for query in ("", "?token=", "?token=%C3%A9", f"?token={site.token[:-1]}"):
        for cookies in ({}, {f"reidexport-{port}": site.token[:-1]}, {"reidexport-1": site.token}):
            answer = httpx.get(f"{site.base}{path}{query}", cookies=cookies)
            assert answer.status_code == 403
            assert "Open the address that reidexport printed" in answer.text
            assert "set-cookie" not in answer.headers


def test_the_token_is_only_taken_by_the_page_itself(site: Site) -> None:
    """An address with the token in it shows the page and leaves a cookie for the rest; data do not take it."""
    assert httpx.get(f"{site.base}gallery?token={site.token}").status_code == 403
    answer = httpx.get(site.url)
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Strict")
    assert httpx.get(f"{site.base}gallery", cookies=dict(answer.cookies)).json()["num_images"] > 0
    assert len(site.token) >= 43  # 256 bits


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:1", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("LOCALHOST", 200),
        (socket.gethostname(), 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example:80", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
def test_names_that_are_not_the_pages_own_are_refused(site: Site, host: str, status: int) -> None:
    """A site whose name was made to lead here (DNS rebinding) gets nothing, even with the token."""
    answer = httpx.get(site.url, headers={"Host": host})
    assert answer.status_code == status
    assert ("not the page's own" in answer.text) == (status == 403)


def test_other_pages_cannot_ask(site: Site) -> None:
    """A request from another site or port is refused although the browser sent the cookie with it."""
    with site.client() as client:
        own = site.base.rstrip("/")
        for origin in (
            "http://evil.example",
            "http://127.0.0.1:1",
            "null",
            f"{own}.evil.example",
            "http://[::1",
        ):
            for method in ("GET", "POST"):
                answer = client.request(method, "/search?row=0", headers={"Origin": origin})
                assert answer.status_code == 403
        assert client.post("/search?row=0", headers={"Origin": own}).status_code == 200


@pytest.mark.parametrize("path", ["", "gallery", "images/0", "static/page.js", "nowhere"])
def test_every_answer_is_locked_down(site: Site, path: str) -> None:
    """A policy that lets the page load its own files only, no framing, no guessing of types, no copies kept."""
    with site.client() as client:
        headers = client.get(f"/{path}").headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


def test_files_beside_the_static_ones_stay_hidden(site: Site) -> None:
    """No path leads out of the folder of the page's files."""
    with site.client() as client:
        for path in (
            "/static/%2e%2e/app.py",
            "/static/..%2fapp.py",
            "/static//etc/passwd",
            "/static/%2fetc%2fpasswd",
        ):
            assert client.get(path).status_code == 404
