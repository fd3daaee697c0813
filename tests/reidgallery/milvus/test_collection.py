"""The collection of a gallery: its index, lost or torn, and what is refused."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pymilvus import DataType
from reidgallery.milvus.collection import IndexKind
from reidgallery.milvus.gallery import MilvusGallery
from reidruntime import InputError

from tests.standins.milvus import ARTIFACT, DIM, assert_same_but_for_ties, filled


def test_a_gallery_that_lost_its_index_is_searched_exactly(
    new_gallery: Callable[..., MilvusGallery],
) -> None:
    """A program killed between dropping an index and building the next one leaves a gallery that opens."""
    gallery = new_gallery()
    gallery.add(np.eye(3, DIM, dtype=np.float32))
    gallery._client.release_collection(gallery._collection)
    gallery._client.drop_index(gallery._collection, "embedding_idx")
    again = new_gallery()
    assert again.index == "exact"
    assert again.search(np.eye(3, DIM, dtype=np.float32), 1).indices.ravel().tolist() == [0, 1, 2]


@pytest.mark.parametrize("share_kept", [0, 0.5])
@pytest.mark.parametrize("index", ["exact", "approximate"])
def test_torn_index_files_are_built_again(index: IndexKind, share_kept: float, tmp_path: Path) -> None:
    """Index files that a killed program left empty or cut off cost no row, answer or choice of an index."""
    path = tmp_path / "people.db"
    whole = filled("cosine")
    with MilvusGallery(str(path), DIM) as gallery:
        gallery.extend(whole)
        gallery.use_index(index)
        expected = gallery.search(whole.parts[0][:5], 3)
    torn = [file for file in path.rglob("indexes/*") if file.is_file()]
    assert {file.suffix for file in torn} == {".idx", ".sidx"}
    for file in torn:
        os.truncate(file, int(file.stat().st_size * share_kept))
    with MilvusGallery(str(path)) as gallery:
        assert (gallery.index, len(gallery)) == (index, 200)
        assert_same_but_for_ties(gallery.search(whole.parts[0][:5], 3), expected)
        gallery.add(whole.parts[0][:1], paths=[whole.paths[0]])
        assert len(gallery) == 200
    assert all(file.stat().st_size > 0 for file in path.rglob("indexes/*"))


def test_indexes_that_are_not_there_are_refused(new_gallery: Callable[..., MilvusGallery]) -> None:
    """milvus-lite has no GPU and says nothing of it; so it is said here."""
    gallery = new_gallery()
    with pytest.raises(
        InputError, match=r"people\.db: milvus-lite has no GPU: a gpu-exact index needs a server"
    ):
        gallery.use_index("gpu-exact")
    with pytest.raises(
        InputError, match="index must be one of exact, approximate, gpu-exact, gpu-approximate"
    ):
        gallery.use_index("HNSW")  # type: ignore[arg-type]
    assert gallery.index == "exact"


def test_a_collection_without_times_is_refused(
    new_gallery: Callable[..., MilvusGallery], folder: Path
) -> None:
    """What an earlier version made is named, not misread."""
    gallery = new_gallery()
    client = gallery._client
    schema = client.create_schema(auto_id=False)
    schema.add_field("row", DataType.INT64, is_primary=True)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=DIM)
    client.create_collection("early", schema=schema, properties={"reidruntime.metric": "cosine"})
    with pytest.raises(InputError, match="collection early is of an earlier version, which kept no times"):
        MilvusGallery(str(folder / "people.db"), collection="early")


def test_what_is_there_is_checked_on_opening(tmp_path: Path) -> None:
    """Dimension, metric and artifact are kept with the rows; another program's open file and no gallery are named."""
    path = str(tmp_path / "people.db")
    with pytest.raises(InputError, match=r"people\.db: there is no such file"):
        MilvusGallery(path)
    with MilvusGallery(path, DIM, metric="euclidean", manifest_sha256=ARTIFACT) as gallery:
        other = subprocess.run(
            [sys.executable, "-c", f"from {MilvusGallery.__module__} import *\nMilvusGallery({path!r})"],
            capture_output=True,
            text=True,
        )
        assert (
            "cannot be opened (Open local milvus failed). Does another program have it open?" in other.stderr
        )
        gallery.add(np.ones((1, DIM), np.float32))
    with MilvusGallery(path) as gallery:
        facts = (gallery.dim, gallery.metric, gallery.manifest_sha256, len(gallery))
    assert facts == (DIM, "euclidean", ARTIFACT, 1)
    with pytest.raises(
        InputError, match="has 24 dimensions and compares by euclidean, expected 8 and euclidean"
    ):
        MilvusGallery(path, 8)
    with pytest.raises(InputError, match="expected 24 and cosine"):
        MilvusGallery(path, metric="cosine")
    with pytest.raises(InputError, match="embeddings were made by another artifact"):
        MilvusGallery(path, manifest_sha256="cd" * 32)
    with pytest.raises(InputError, match=r"has no gallery nothing\. Pass dim to make one"):
        MilvusGallery(path, collection="nothing")
    with MilvusGallery(path) as gallery:
        gallery._client.create_collection("foreign", dimension=DIM)
        with pytest.raises(InputError, match="the collection foreign is not a gallery of reidgallery"):
            MilvusGallery(path, collection="foreign")
