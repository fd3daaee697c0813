"""Persons and images that are to be forgotten, and stay so."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from reidgallery import Gallery, MilvusGallery, load_gallery
from reidgallery.file import GALLERY_SUFFIX
from reidgallery.input import check_removed_pids

from reidexport.errors import InputError
from reidexport.gallery.labels import label_parts
from reidexport.gallery.milvus_address import is_milvus, open_milvus


@dataclass(frozen=True)
class ForgetRun:
    """What :func:`forget_persons` did.

    Attributes:
        num_removed: embeddings that were removed.
        num_left: embeddings that are left.
        not_found: in words, each person and pattern of which the gallery has no row.
    """

    num_removed: int
    num_left: int
    not_found: tuple[str, ...]


def forget_persons(gallery: str, pids: Collection[int] = (), paths: Sequence[str] = ()) -> ForgetRun:
    """Remove persons and images from a gallery: no search, count or export finds them any more.

    They are put on the gallery's list of the forgotten, too: ``embed --append`` and ``store`` leave them out from then
    on. Whom the gallery does not have is not put there.

    Args:
        gallery: a ``.gallery`` file, which is replaced by one without them, or an address of Milvus.
        pids: the persons; -1 for junk.
        paths: of images, as the gallery has them, or patterns such as ``crops/a/*``.

    Raises:
        InputError: the gallery is missing or damaged, or another program has written it in the meantime; or a pid is
            less than -1.
        NotInstalledError: pymilvus or milvus-lite is not installed.
    """
    check_removed_pids(pids)
    if is_milvus(gallery):
        with open_milvus(gallery) as stored:
            return _forget(stored, pids, paths)
    path = Path(gallery)
    if path.suffix != GALLERY_SUFFIX:
        raise InputError(
            f"{gallery}: persons are removed from {GALLERY_SUFFIX} files and from galleries in Milvus, which keep a "
            f"list of whom they have forgotten. Run `reidexport store {gallery} {path.with_suffix(GALLERY_SUFFIX)}`, "
            f"forget there, and delete {gallery}."
        )
    loaded = load_gallery(path)
    run = _forget(loaded, pids, paths)
    if run.num_removed:
        loaded.save(path)
    return run


def _forget(gallery: Gallery | MilvusGallery, pids: Collection[int], patterns: Sequence[str]) -> ForgetRun:
    found_pids, found_paths, matched = set[int](), set[str](), set[str]()
    for part in label_parts(gallery):
        found_pids |= set(pids).intersection(np.unique(part.pids).tolist())
        for pattern in patterns:
            if found := {
                path for path in part.paths if path and (path == pattern or fnmatchcase(path, pattern))
            }:
                matched.add(pattern)
                found_paths |= found
    before = gallery.forgotten
    not_found = []
    for pid in sorted(set(pids) - found_pids):
        why = ": forgotten already" if pid in before.pids else ""
        not_found.append(f"no image of person {pid}{why}")
    for pattern in patterns:
        if pattern not in matched:
            is_listed = any(path == pattern or fnmatchcase(path, pattern) for path in before.all_paths)
            not_found.append(f"no path {pattern}{': forgotten already' if is_listed else ''}")
    num_removed = gallery.forget(found_pids, paths=found_paths) if found_pids or found_paths else 0
    return ForgetRun(num_removed, len(gallery), tuple(not_found))
