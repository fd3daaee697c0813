"""Where the page listens, and the command that serves it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from reidgallery import Gallery

from reidexport.errors import InputError
from reidexport.gallery.web.searcher import Searcher
from reidexport.gallery.web.server import page_server
from tests.conftest import Exported, Run
from tests.reidexport.gallery.web.conftest import served

SEARCH = "from reidexport.cli import main; main()"


@pytest.fixture
def saved(people: Gallery, tmp_path: Path) -> Path:
    """The drawn people in a file."""
    path = tmp_path / "people.gallery"
    people.save(path)
    return path


def test_a_taken_port_and_a_foreign_host_are_refused(people: Gallery) -> None:
    """Both are named, with what to do."""
    searcher = Searcher(people)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            InputError, match=rf"127\.0\.0\.1:{port}: cannot listen there .* another --port, 0 for any"
        ):
            page_server(searcher, "people", port=port)
    with pytest.raises(InputError, match=r"203\.0\.113\.1:0: cannot listen there .*or --host"):
        page_server(searcher, "people", host="203.0.113.1", port=0)
    with pytest.raises(
        InputError, match=r"--host no\.such\.host\.invalid: .* Use a name or address of this machine"
    ):
        page_server(searcher, "people", host="no.such.host.invalid", port=0)
    with pytest.raises(InputError, match="The page shows 1 to 200 matches, not 500"):
        page_server(searcher, "people", port=0, num_matches=500)


@pytest.mark.parametrize(("host", "is_local"), [("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)])
def test_a_server_knows_whether_others_reach_it(people: Gallery, host: str, is_local: bool) -> None:
    """The loopback is this machine's own; everything else is not. Every server has a token of its own."""
    servers = [page_server(Searcher(people), "people", host=host, port=0) for _ in range(2)]
    for server in servers:
        server.listening.close()
    assert [server.is_local for server in servers] == [is_local, is_local]
    assert "0.0.0.0" not in servers[0].url
    assert servers[0].url.partition("token=")[2] != servers[1].url.partition("token=")[2]


def test_answers_do_not_wait_for_acknowledgements(people: Gallery) -> None:
    """The socket names its protocol, without which asyncio leaves Nagle's algorithm on: 40 ms an answer."""
    with page_server(Searcher(people), "people", port=0).listening as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_warming_up_changes_nothing(people: Gallery) -> None:
    """Nor does it need rows to search for."""
    for gallery in (people, Gallery(people.dim)):
        Searcher(gallery).warm_up()
        assert len(gallery) in (0, len(people))


def test_an_empty_gallery_is_served(people: Gallery) -> None:
    """A page without people says so instead of failing."""
    with served(Searcher(Gallery(people.dim))) as site, site.client() as client:
        assert client.get("/people").json() == {"start": 0, "total": 0, "people": []}
        assert client.get("/gallery").json()["num_images"] == 0


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_the_command_serves_until_it_is_stopped(
    saved: Path, exported: Exported, stop: signal.Signals, status: int
) -> None:
    """It prints the address, answers there, and ends with Ctrl-C, or as other commands with SIGTERM."""
    arguments = ["web", saved, "--artifact", exported.onnx, "--port", "0", "-k", "7"]
    command = [sys.executable, "-c", SEARCH, *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), process.communicate()[1]
        with httpx.Client(base_url=url.partition("?")[0]) as client:
            client.get(url)
            assert client.get("/gallery").json()["num_matches"] == 7
        process.send_signal(stop)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (status, "")
    assert err == "Open this address in a browser; Ctrl-C ends it.\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.gallery"], "missing.gallery: there is no such file."),
        (["{gallery}", "--artifact", "{fp16}"], "were made by another artifact"),
        (["{gallery}", "--port", "0", "-k", "201"], "The page shows 1 to 200 matches, not 201."),
    ],
)
def test_bad_commands_are_refused(
    run: Run, saved: Path, exported: Exported, arguments: list[str], words: str
) -> None:
    """What a page cannot use ends with status 2 and words."""
    done = run("web", *(a.format(gallery=saved, fp16=exported.fp16) for a in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
