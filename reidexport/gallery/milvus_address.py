"""Galleries in Milvus by their address on the command line: ``milvus:FILE.db`` or ``http(s)://HOST:PORT``."""

import logging
import os

from reidgallery import MilvusGallery
from reidruntime.artifact.manifest import Metric

_FILE_PREFIX = "milvus:"


def is_milvus(address: str) -> bool:
    """Whether it is an address of Milvus rather than a file of embeddings."""
    return address.startswith((_FILE_PREFIX, "http://", "https://"))


def open_milvus(
    address: str, dim: int | None = None, *, metric: Metric | None = None, manifest_sha256: str | None = None
) -> MilvusGallery:
    """Open the gallery there; with ``dim``, make it if it does not exist. Errors are those of MilvusGallery."""
    for name in ("pymilvus", "milvus_lite"):  # they also log each error, with a traceback
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return MilvusGallery(
        address.removeprefix(_FILE_PREFIX),
        dim,
        metric=metric,
        manifest_sha256=manifest_sha256,
        token=os.environ.get("MILVUS_TOKEN", ""),  # on the command line everyone would see it
    )
