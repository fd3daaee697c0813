"""Milvus itself: who may open a file, and addresses that cannot be."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reidgallery.milvus.gallery import MilvusGallery
from reidruntime import InputError, NotInstalledError

from tests.standins.milvus import DIM


def test_a_file_is_closed_by_the_last_gallery_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that fails to open, or is closed, even twice, leaves the file to the others; then programs can open it."""
    monkeypatch.chdir(tmp_path)
    rows = np.eye(3, DIM, dtype=np.float32)
    first = MilvusGallery("people.db", DIM)
    first.add(rows)
    with pytest.raises(InputError, match="has 24 dimensions"):
        MilvusGallery("people.db", 8)
    second = MilvusGallery(str(tmp_path / "people.db"))
    for _ in range(2):
        second.close()
        assert first.search(rows, 1).indices.ravel().tolist() == [0, 1, 2]
    first.close()
    code = f"from {MilvusGallery.__module__} import *\nprint(len(MilvusGallery('people.db')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"


def test_addresses_that_cannot_be_are_refused(tmp_path: Path) -> None:
    """A file of another name, a server that is not there, a dimension and a metric that do not exist."""
    with pytest.raises(InputError, match=r"people\.gallery: expected a name that ends in \.db, or http"):
        MilvusGallery(str(tmp_path / "people.gallery"), DIM)
    with pytest.raises(InputError, match=r"127\.0\.0\.1:1: cannot be opened .*Is the address right\?"):
        MilvusGallery("http://127.0.0.1:1", DIM)
    with pytest.raises(InputError, match="dim must be at least 1, got 0"):
        MilvusGallery("people.db", 0)
    with pytest.raises(InputError, match="metric must be cosine or euclidean, got 'dot'"):
        MilvusGallery("people.db", DIM, metric="dot")  # type: ignore[arg-type]


@pytest.mark.parametrize("module", ["pymilvus", "milvus_lite"])
def test_a_missing_package_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pymilvus or milvus-lite the error is the pip line."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NotInstalledError, match=rf'{module} is not .*pip install "reidexport\[milvus\]"'):
        MilvusGallery("people.db", DIM)
