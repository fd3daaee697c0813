"""Embeddings into Milvus and out again, and persons who are to be forgotten."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from reidgallery import Gallery, load_gallery
from reidgallery.file import GALLERY_SUFFIX
from reidgallery.milvus.collection import IndexKind, check_index
from reidgallery.milvus.recall import Recall, measured_recall
from reidgallery.milvus.rows import check_paths

from reidexport.embed.files import read_gallery
from reidexport.embed.table import TABLE_SUFFIX, EmbeddingTable, open_table, write_table
from reidexport.errors import InputError
from reidexport.gallery.milvus_address import is_milvus, open_milvus
from reidexport.progress import ProgressBar, no_progress_bar


@dataclass(frozen=True)
class StoreRun:
    """What :func:`store_in_milvus` did.

    Attributes:
        num_added: embeddings that were in the source.
        num_rows: embeddings that are now in the gallery.
        index: what searches it.
        recall: of the index, where one was asked for.
    """

    num_added: int
    num_rows: int
    index: IndexKind
    recall: Recall | None


def store_in_milvus(
    source: Path, address: str, *, index: IndexKind | None = None, progress_bar: ProgressBar = no_progress_bar
) -> StoreRun:
    """Add embeddings to a gallery in Milvus, which is made if it does not exist.

    A path that the gallery already has is replaced, so that running a killed import again completes it. Parquet
    is read a few thousand rows at a time.

    Args:
        source: what ``write_embeddings`` wrote, or a folder of Parquet files.
        address: ``milvus:FILE.db`` or ``http(s)://HOST:PORT``.
        index: what is to search the gallery from now on; it is built when all rows are stored, and its recall measured.
        progress_bar: shows how far it is.

    Raises:
        InputError: the source cannot be read, its paths are not unique, or Milvus refuses.
        ArtifactError: a manifest is of another version.
        NotInstalledError: pymilvus or milvus-lite is not installed.
    """
    if index is not None:
        check_index(address, index)
    is_table = source.suffix == TABLE_SUFFIX or source.is_dir()
    new: EmbeddingTable | Gallery = open_table(source) if is_table else read_gallery(source)
    check_paths(new.paths)
    with open_milvus(address, new.dim, metric=new.metric, manifest_sha256=new.manifest_sha256) as gallery:
        with progress_bar("storing", len(new)) as progress:
            gallery.add_parts(new.labeled_parts(), manifest_sha256=new.manifest_sha256, progress=progress)
        recall = None
        if index is not None:
            if index != gallery.index:
                gallery.use_index(index)
            with progress_bar("measuring recall", len(gallery)) as progress:
                recall = measured_recall(gallery, progress=progress)
        return StoreRun(len(new), len(gallery), gallery.index, recall)


def export_from_milvus(address: str, path: Path, *, progress_bar: ProgressBar = no_progress_bar) -> int:
    """Write all rows of a gallery in Milvus, with their labels, into a Parquet file that ``store`` and ``search`` read.

    Returns:
        How many.

    Raises:
        InputError: the gallery is missing, Milvus refuses, or the path is invalid.
        NotInstalledError: pymilvus or milvus-lite is not installed.
    """
    if path.suffix != TABLE_SUFFIX:
        raise InputError(f"{path}: a gallery in Milvus is written to {TABLE_SUFFIX} files.")
    with open_milvus(address) as gallery, progress_bar("writing", len(gallery)) as progress:
        return write_table(path, gallery, progress)


def forget_persons(gallery: str, pids: Collection[int]) -> tuple[int, int]:
    """Remove persons from a gallery: no search, count or export finds them any more.

    Args:
        gallery: a ``.gallery`` file, which is replaced by one without them, or an address of Milvus.
        pids: the persons; -1 for junk.

    Returns:
        How many embeddings were removed, and how many are left.

    Raises:
        InputError: the gallery is missing or damaged, or a pid is less than -1.
        NotInstalledError: pymilvus or milvus-lite is not installed.
    """
    if is_milvus(gallery):
        with open_milvus(gallery) as stored:
            return stored.remove(pids), len(stored)
    path = Path(gallery)
    if path.suffix != GALLERY_SUFFIX:
        raise InputError(
            f"{gallery}: persons are removed from {GALLERY_SUFFIX} files and from galleries in Milvus. Delete other "
            "files of embeddings."
        )
    loaded = load_gallery(path)
    num_removed = loaded.remove(pids)
    if num_removed:
        loaded.save(path)
    return num_removed, len(loaded)
