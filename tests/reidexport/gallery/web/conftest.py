"""A gallery of drawn people, and the page that searches it, served for real."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from reidgallery import Gallery
from reidruntime import Session, open_session

from reidexport.data import Dataset
from reidexport.embed.files import add_embeddings, gallery_from_manifest
from reidexport.gallery.web.searcher import Searcher
from reidexport.gallery.web.server import page_server
from tests.conftest import Exported


@pytest.fixture(scope="session")
def session(exported: Exported) -> Iterator[Session]:
    """The small artifact, opened."""
    with open_session(exported.onnx) as opened:
        yield opened


@pytest.fixture(scope="session")
def people(session: Session, drawn_dataset: Dataset) -> Gallery:
    """The drawn data set's gallery."""
    paths = [str(record.path) for record in drawn_dataset.gallery]
    gallery = gallery_from_manifest(session.manifest)
    add_embeddings(gallery, session.embed(paths), paths)
    return gallery


@dataclass(frozen=True)
class Site:
    """A page that is being served."""

    url: str

    @property
    def base(self) -> str:
        """The address without the token."""
        return self.url.partition("?")[0]

    @property
    def token(self) -> str:
        """What is in the address."""
        return self.url.partition("token=")[2]

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """A visitor who opened the address and so has the cookie."""
        with httpx.Client(base_url=self.base, timeout=30) as client:
            assert client.get(self.url).status_code == 200
            yield client


@contextmanager
def served(searcher: Searcher, **options: int) -> Iterator[Site]:
    """Serve a page on a free port while the block runs."""
    server = page_server(searcher, "people.gallery", port=0, **options)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield Site(server.url)
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def site(people: Gallery, session: Session) -> Iterator[Site]:
    """The page of the drawn people, which takes uploads."""
    with served(Searcher(people, session)) as served_site:
        yield served_site


@pytest.fixture(scope="module")
def broken_site(people: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A page without an artifact, of images that are gone, no images, and of nobody knows whom or where."""
    text = tmp_path_factory.mktemp("broken") / "0001_c1s1_000001_00.jpg"
    text.write_text("no image")
    gallery = Gallery(people.dim, metric=people.metric)
    gallery.add(people.embeddings(np.arange(2)), paths=["gone.jpg", ""])
    add_embeddings(gallery, people.embeddings(np.arange(2, 3)), [str(text)])
    with served(Searcher(gallery)) as served_site:
        yield served_site


@pytest.fixture(scope="session")
def large_upload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 MB that begin as a JPEG does."""
    path = tmp_path_factory.mktemp("large") / "large.jpg"
    path.write_bytes(b"\xff\xd8\xff" + bytes(20_000_000))
    return path
