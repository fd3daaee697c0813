"""Files of embeddings that claim to be more than they are."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reidruntime.artifact.manifest import METADATA_KEY

from reidexport.embed.files import read_gallery
from reidexport.errors import InputError
from tests.standins.runtime_models import small_manifest


def test_a_small_npz_cannot_claim_gigabytes(tmp_path: Path) -> None:
    """Arrays that are packed a thousand times smaller than embeddings can be are refused before they are unpacked."""
    path = tmp_path / "embeddings.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        array = io.BytesIO()
        np.save(array, np.zeros((2**20, 8), np.float32))
        archive.writestr("embeddings.npy", array.getvalue())
    with pytest.raises(
        InputError, match=r"claims 33554560 bytes of embeddings in a file of \d+: it is damaged"
    ):
        read_gallery(path)


def test_a_small_parquet_file_cannot_claim_gigabytes(tmp_path: Path) -> None:
    """So is a table whose rows all stand in one run."""
    path, rows, dim = tmp_path / "embeddings.parquet", 20_000, 512
    embeddings = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(rows * dim, np.float32)), dim)
    hashes = pa.array(["0" * 64] * rows).dictionary_encode()
    table = pa.table({"path": [""] * rows, "embedding": embeddings, "manifest_sha256": hashes})
    table = table.replace_schema_metadata({METADATA_KEY: small_manifest().to_json()})
    pq.write_table(table, path, compression="zstd")
    with pytest.raises(
        InputError, match=r"claims 40960000 bytes of embeddings in a file of \d+: it is damaged"
    ):
        read_gallery(path)
