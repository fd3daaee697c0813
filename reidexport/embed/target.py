"""The gallery that a run writes: a new one, one in the place of another, or another with more rows."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reidgallery import Gallery, load_gallery
from reidgallery.file import GALLERY_SUFFIX, file_identity
from reidgallery.input import LabeledRows
from reidruntime import Manifest

from reidexport.embed.adding import NO_DUPLICATES, AddingRules, add_rows, check_same_artifact
from reidexport.embed.files import gallery_from_manifest
from reidexport.errors import InputError
from reidexport.records.embeddings import GalleryChange


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """What to do where the output is a gallery that exists.

    Attributes:
        existing: ``"refuse"`` it, ``"replace"`` it, or ``"append"`` to it. Who was forgotten stays forgotten.
        rules: what may be added.
    """

    existing: Literal["refuse", "replace", "append"] = "refuse"
    rules: AddingRules = NO_DUPLICATES


NEW_TARGET = TargetOptions()


def existing_gallery(
    output: Path, manifest: Manifest, target: TargetOptions, *, verify: bool = False
) -> Gallery | None:
    """The gallery that is there, mapped, and read once where ``verify``; None where there is none, or nobody asks.

    Raises:
        InputError: it is to be refused, is damaged, or cannot be appended to.
    """
    if output.suffix != GALLERY_SUFFIX or not output.is_file():
        return None
    if target.existing == "refuse":
        raise InputError(
            f"{output}: the gallery exists. Pass --append to add to it, or --replace to write it anew (--force is for "
            "other files)."
        )
    try:
        gallery = load_gallery(output, verify=verify)
    except InputError as error:
        hint = " Delete it first: whom it has forgotten cannot be read."
        raise InputError(f"{error}{hint if target.existing == 'replace' else ''}") from error
    if target.existing == "append":
        check_same_artifact(gallery, str(output), manifest.sha256, "the images")
        if (gallery.dim, gallery.metric) != (manifest.architecture.feature_dim, manifest.metric):
            raise InputError(
                f"{output}: the gallery has {gallery.dim} dimensions and compares by {gallery.metric}, the artifact "
                f"{manifest.architecture.feature_dim} and {manifest.metric}. Append what the same artifact embeds."
            )
    return gallery


def save_gallery(
    output: Path,
    parts: Iterable[LabeledRows],
    manifest: Manifest,
    target: TargetOptions,
    if_still: str | None = None,
) -> GalleryChange:
    """Write the gallery; until it is whole, the one that was there stays.

    Args:
        output: ``NAME.gallery``.
        parts: the new rows.
        manifest: of the artifact that made them.
        target: what to do where the gallery exists.
        if_still: the identity of the file that may be replaced; default: of what is there now.

    Raises:
        InputError: as :func:`existing_gallery`, or a path is there already; or another program has written the
            gallery since.
    """
    if_still = if_still or file_identity(output)
    gallery = existing_gallery(output, manifest, target, verify=target.existing == "append")
    if gallery is None or target.existing == "replace":
        forgotten = gallery and gallery.forgotten
        gallery = gallery_from_manifest(manifest)
        if forgotten:
            gallery.list_forgotten(forgotten)
    change = add_rows(gallery, parts, target.rules, str(output))
    gallery.save(output, if_still=if_still)
    return change
