"""Galleries of embeddings, searched exactly: in memory, in a file, or in Milvus.

>>> gallery = Gallery(dim=2048, metric="cosine")
>>> gallery.add(embeddings, pids=pids, camids=camids, times=times, paths=paths)
>>> gallery.search(queries, k=10).indices  # (num_query, 10), nearest first
>>> gallery.search(queries, filter=SearchFilter(other_cameras=True), camids=q_camids)
"""

from reidgallery.gallery import Gallery, load_gallery
from reidgallery.input import SearchFilter
from reidgallery.milvus.gallery import MilvusGallery
from reidgallery.scan.candidates import Neighbors

__all__ = ["Gallery", "MilvusGallery", "Neighbors", "SearchFilter", "load_gallery"]
