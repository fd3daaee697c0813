"""A file of milvus-lite for the tests of a module."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from reidgallery.milvus.gallery import MilvusGallery

from tests.standins.milvus import ARTIFACT, DIM


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests keep one file; each test makes collections of its own, as opening takes a while."""
    return tmp_path_factory.mktemp("milvus")


@pytest.fixture
def new_gallery(folder: Path, request: pytest.FixtureRequest) -> Callable[..., MilvusGallery]:
    """Makes an empty gallery for this test."""
    name = re.sub(r"\W", "_", request.node.name)
    return lambda metric="cosine": MilvusGallery(
        str(folder / "people.db"), DIM, metric=metric, manifest_sha256=ARTIFACT, collection=f"{name}_{metric}"
    )
