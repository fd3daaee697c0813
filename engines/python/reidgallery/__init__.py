"""Galleries of embeddings, searched exactly: in memory, in a file, or in Milvus.

>>> gallery = Gallery(dim=2048, metric="cosine")
>>> gallery.add(embeddings, pids=pids, camids=camids, paths=paths)
>>> gallery.search(queries, k=10).indices  # (num_query, 10), nearest first
"""

from reidgallery.gallery import Gallery, load_gallery
from reidgallery.milvus.gallery import MilvusGallery
from reidgallery.scan.topk import Neighbors

__all__ = ["Gallery", "MilvusGallery", "Neighbors", "load_gallery"]
