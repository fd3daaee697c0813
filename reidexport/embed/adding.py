"""Rows into a gallery that has others: what becomes of paths that are there, and of those who were forgotten."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from reidgallery import Gallery
from reidgallery.input import NOBODY_FORGOTTEN, BaseGallery, Forgotten, LabeledRows, are_among

from reidexport.data.label_file import LabelFile
from reidexport.errors import InputError
from reidexport.records.embeddings import GalleryChange

OnDuplicate = Literal["error", "skip", "replace"]


@dataclass(frozen=True, kw_only=True)
class AddingRules:
    """What may be added to a gallery.

    Attributes:
        on_duplicate: where a path is in the gallery: ``"error"``; ``"skip"`` the new row; or ``"replace"`` the old.
        include_forgotten: add those who were forgotten, too, and take them off the gallery's list.
    """

    on_duplicate: OnDuplicate = "error"
    include_forgotten: bool = False


NO_DUPLICATES = AddingRules()


class ForgottenFilter:
    """Leaves out the rows of the forgotten and counts them; or lets them in and keeps who they are."""

    def __init__(self, listed: Forgotten, *, include: bool) -> None:
        self._listed, self._include = listed, include
        self.num_left_out, self.back = 0, NOBODY_FORGOTTEN

    def allowed(self, rows: LabeledRows) -> LabeledRows:
        """The rows that may be added."""
        if not any(self._listed):
            return rows
        if self._include:
            self.back |= Forgotten(
                self._listed.pids & set(rows.pids.tolist()), self._listed.all_paths & set(rows.paths)
            )
            return rows
        on_list = self._listed.among(rows)
        self.num_left_out += int(on_list.sum())
        return rows.where(~on_list)


def add_rows(gallery: Gallery, parts: Iterable[LabeledRows], rules: AddingRules, name: str) -> GalleryChange:
    """Add rows to a gallery in memory; where that fails, leave its file as it is.

    Args:
        gallery: what to add to.
        parts: the rows; those of one path among them are all added.
        rules: what may be added.
        name: of the gallery, for errors.

    Raises:
        InputError: a path is there already and ``rules`` say error; or a row does not fit.
    """
    known, filter = (
        set(gallery.paths) - {""},
        ForgottenFilter(gallery.forgotten, include=rules.include_forgotten),
    )
    added, duplicates, num_skipped = list[LabeledRows](), set[str](), 0
    for part in parts:
        rows = filter.allowed(part)
        is_known = are_among(rows.paths, known)
        duplicates |= known.intersection(rows.paths)
        if rules.on_duplicate == "skip":
            rows = rows.where(~is_known)
            num_skipped += int(is_known.sum())
        added.append(rows)
    if rules.on_duplicate == "error":
        refuse_duplicates([path for rows in added for path in rows.paths if path in duplicates], name)
    num_replaced = gallery.remove(paths=duplicates) if rules.on_duplicate == "replace" and duplicates else 0
    for rows in added:
        gallery.add(**rows._asdict())
    gallery.bring_back(filter.back)
    return GalleryChange(
        num_added=sum(len(rows.paths) for rows in added),
        num_replaced=num_replaced,
        num_duplicates_skipped=num_skipped,
        num_forgotten_skipped=filter.num_left_out,
        num_rows=len(gallery),
    )


def check_same_artifact(gallery: BaseGallery, name: str, manifest_sha256: str | None, source: str) -> None:
    """Raise InputError unless both artifacts are known and the same, or neither is known.

    Args:
        gallery: what is to be added to.
        name: of the gallery.
        manifest_sha256: of the artifact that made what is to be added; None where that is not known.
        source: what is to be added.
    """
    gallery.check_artifact(manifest_sha256, f"{name}: what is to be added")
    if gallery.manifest_sha256 is None and manifest_sha256 is not None:
        raise InputError(
            f"{name}: the gallery does not say which artifact made it. Where it is that of {source}, extend it "
            "in Python."
        )
    if gallery.manifest_sha256 is not None and manifest_sha256 is None:
        raise InputError(
            f"{source} does not say which artifact made its embeddings. Where it is that of {name}, extend the gallery "
            "in Python."
        )


def refuse_duplicates(paths: Sequence[str], name: str) -> None:
    """Raise InputError where there are paths, which the gallery has."""
    if paths:
        raise InputError(
            f"{name}: {len(paths)} of the paths are in the gallery already, the first {paths[0]}. Pass --on-duplicate "
            "skip to keep what it has, or --on-duplicate replace to put the new embeddings in its place."
        )


def relabeled(parts: Iterable[LabeledRows], table: LabelFile | None) -> Iterator[LabeledRows]:
    """The same rows, with the labels of a table where it has some."""
    for part in parts:
        if table is None:
            yield part
        else:
            pids, camids, times = table.labels_of(part.paths, np.stack([part.pids, part.camids, part.times]))
            yield LabeledRows(part.embeddings, pids, camids, times, part.paths)
