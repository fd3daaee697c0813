"""Embeddings from one kind of gallery or file into another, with their labels."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from reidgallery import Gallery, MilvusGallery, load_gallery
from reidgallery.file import GALLERY_SUFFIX, file_identity
from reidgallery.input import LabeledRows, are_among
from reidgallery.milvus.collection import IndexKind, check_index
from reidgallery.milvus.recall import Recall, measured_recall
from reidgallery.milvus.rows import check_paths

from reidexport.data.label_file import LabelFile
from reidexport.embed.adding import (
    NO_DUPLICATES,
    AddingRules,
    ForgottenFilter,
    add_rows,
    check_same_artifact,
    refuse_duplicates,
    relabeled,
)
from reidexport.embed.files import read_gallery, write_gallery
from reidexport.embed.table import TABLE_SUFFIX, EmbeddingTable, open_table
from reidexport.errors import InputError
from reidexport.gallery.milvus_address import is_milvus, open_milvus
from reidexport.progress import ProgressBar, no_progress_bar
from reidexport.records.embeddings import GalleryChange

WRITTEN_SUFFIXES = (TABLE_SUFFIX, ".npz")
REPLACE = AddingRules(on_duplicate="replace")
_Source = EmbeddingTable | Gallery | MilvusGallery


@dataclass(frozen=True)
class StoreRun:
    """What :func:`store_in_milvus` did.

    Attributes:
        num_added: embeddings that were put into the gallery.
        num_rows: embeddings that are now in the gallery.
        index: what searches it.
        recall: of the index, where one was asked for.
        num_duplicates_skipped: embeddings that were left out because their paths were there, and
        num_forgotten_skipped: because their persons or paths had been forgotten.
    """

    num_added: int
    num_rows: int
    index: IndexKind
    recall: Recall | None
    num_duplicates_skipped: int = 0
    num_forgotten_skipped: int = 0


def store_in_milvus(
    source: Path,
    address: str,
    *,
    index: IndexKind | None = None,
    rules: AddingRules = REPLACE,
    table: LabelFile | None = None,
    log: Callable[[str], None] = print,
    progress_bar: ProgressBar = no_progress_bar,
) -> StoreRun:
    """Add embeddings to a gallery in Milvus, which is made if it does not exist.

    A path that the gallery already has is replaced, so that running a killed import again completes it. Parquet
    is read a few thousand rows at a time. A new gallery takes over whom a ``.gallery`` has forgotten.

    Args:
        source: what ``write_embeddings`` wrote, or a folder of Parquet files.
        address: ``milvus:FILE.db`` or ``http(s)://HOST:PORT``.
        index: what is to search the gallery from now on; it is built when all rows are stored, and its recall measured.
        rules: what may be added.
        table: of labels that go before those of the source.
        log: called with a line for everything that the table leaves open.
        progress_bar: shows how far it is.

    Raises:
        InputError: the source cannot be read, its paths are not unique, a path is there already and ``rules`` say
            error, or Milvus refuses.
        ArtifactError: a manifest is of another version.
        NotInstalledError: pymilvus or milvus-lite is not installed.
    """
    if index is not None:
        check_index(address, index)
    with _opened(str(source)) as new:
        check_paths(_paths_of(new))
        _log_notes(new, table, log)
        with open_milvus(address, new.dim, metric=new.metric, manifest_sha256=new.manifest_sha256) as gallery:
            check_same_artifact(gallery, address, new.manifest_sha256, str(source))
            if rules.on_duplicate == "error":
                refuse_duplicates(sorted(gallery.known_paths(list(_paths_of(new)))), address)
            if isinstance(new, Gallery) and any(new.forgotten) and not len(gallery):
                gallery.list_forgotten(new.forgotten)
            filter = ForgottenFilter(gallery.forgotten, include=rules.include_forgotten)
            num_skipped, num_added = 0, 0

            def allowed_parts() -> Iterator[LabeledRows]:
                nonlocal num_skipped, num_added
                for part in relabeled(new.labeled_parts(), table):
                    rows = filter.allowed(part)
                    if rules.on_duplicate == "skip":
                        known = gallery.known_paths(rows.paths)
                        kept = ~are_among(rows.paths, known)
                        num_skipped += int((~kept).sum())
                        rows = rows.where(kept)
                    num_added += len(rows.paths)
                    yield rows

            with progress_bar("storing", len(new)) as progress:
                gallery.add_parts(allowed_parts(), manifest_sha256=new.manifest_sha256, progress=progress)
            gallery.bring_back(filter.back)
            recall = None
            if index is not None:
                if index != gallery.index:
                    gallery.use_index(index)
                with progress_bar("measuring recall", len(gallery)) as progress:
                    recall = measured_recall(gallery, progress=progress)
            return StoreRun(num_added, len(gallery), gallery.index, recall, num_skipped, filter.num_left_out)


def store_in_gallery(
    source: str,
    path: Path,
    *,
    rules: AddingRules = NO_DUPLICATES,
    table: LabelFile | None = None,
    log: Callable[[str], None] = print,
) -> GalleryChange:
    """Add embeddings to a ``.gallery``, which is made if it does not exist; it is replaced by a whole one.

    Args:
        source: what ``write_embeddings`` wrote, a folder of Parquet files, or an address of Milvus.
        path: ``*.gallery``. A new one takes over whom another gallery has forgotten.
        rules: what may be added.
        table: of labels that go before those of the source.
        log: called with a line for everything that the table leaves open.

    Raises:
        InputError: the source cannot be read, is of another artifact, dimension or metric, or a path is there already
            and ``rules`` say error; or another program wrote the gallery while the rows were read.
        NotInstalledError: pymilvus or milvus-lite is not installed.
    """
    before = file_identity(path)
    with _opened(source) as new:
        _log_notes(new, table, log)
        if path.exists():
            gallery = load_gallery(path)
            check_same_artifact(gallery, str(path), new.manifest_sha256, source)
            if (gallery.dim, gallery.metric) != (new.dim, new.metric):
                raise InputError(
                    f"{path}: the gallery has {gallery.dim} dimensions and compares by {gallery.metric}, {source} "
                    f"{new.dim} and {new.metric}. Store it in another gallery."
                )
        else:
            gallery = Gallery(new.dim, metric=new.metric, manifest_sha256=new.manifest_sha256)
            if not isinstance(new, EmbeddingTable):
                gallery.list_forgotten(new.forgotten)
        change = add_rows(gallery, relabeled(new.labeled_parts(), table), rules, str(path))
    gallery.save(path, if_still=before)
    return change


def export_gallery(source: str, path: Path, *, progress_bar: ProgressBar = no_progress_bar) -> int:
    """Write all rows of a gallery, with their labels, into a Parquet or ``.npz`` file.

    Args:
        source: a ``.gallery`` or an address of Milvus.
        path: ``*.parquet`` or ``*.npz``, replaced if it exists. It has no place for whom the gallery has forgotten.
        progress_bar: shows how far it is.

    Returns:
        How many.

    Raises:
        InputError: the gallery is missing, Milvus refuses, or the path is invalid.
        NotInstalledError: pymilvus or milvus-lite is not installed.
    """
    if path.suffix not in WRITTEN_SUFFIXES:
        raise InputError(f"{path}: a gallery is written to {' or '.join(WRITTEN_SUFFIXES)} files.")
    with _opened(source) as gallery:
        if isinstance(gallery, EmbeddingTable):
            raise InputError(f"{source}: expected a {GALLERY_SUFFIX} file or a gallery in Milvus.")
        with progress_bar("writing", len(gallery)) as progress:
            return write_gallery(path, gallery, progress)


def _opened(source: str) -> AbstractContextManager[_Source]:
    if is_milvus(source):
        return open_milvus(source)
    path = Path(source)
    is_table = path.suffix == TABLE_SUFFIX or path.is_dir()
    return nullcontext(open_table(path) if is_table else read_gallery(path))


def _paths_of(source: _Source) -> Iterable[str]:
    """The path of every row."""
    return source.labels(source.row_numbers()).paths if isinstance(source, MilvusGallery) else source.paths


def _log_notes(source: _Source, table: LabelFile | None, log: Callable[[str], None]) -> None:
    for note in [] if table is None else table.notes(list(_paths_of(source))):
        log(note)
