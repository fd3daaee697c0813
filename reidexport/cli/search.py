"""``reidexport search``: who in the gallery is nearest to these people?"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from reidgallery import Gallery, MilvusGallery, SearchFilter
from reidgallery.rows import fault_of_row
from typer import Argument, Option

from reidexport.cli.option_groups import with_option_groups
from reidexport.cli.output import ForceOption, JsonOption, log
from reidexport.cli.shared_options import (
    GalleryArgument,
    GalleryArtifactOption,
    LabelsOption,
    RunOptions,
    open_gallery,
)
from reidexport.data.image_paths import find_images
from reidexport.data.label_file import read_label_file
from reidexport.data.name_labels import labels_from_names
from reidexport.data.times import parse_time, time_text
from reidexport.embed.files import SUFFIXES, add_embeddings, gallery_from_manifest, read_gallery
from reidexport.errors import ImageError, InputError
from reidexport.evaluation.scoring import camids_where_used
from reidexport.files import check_replaceable, replaced_when_whole
from reidexport.gallery.contact_sheets import answers_sheet
from reidexport.gallery.empty_answers import why_empty
from reidexport.gallery.searching import Answer, search_gallery
from reidexport.progress import progress_bar
from reidexport.records.embeddings import AnsweredQuery, SearchRecord, SeenImage
from reidexport.records.reading import write_record


@dataclass(frozen=True)
class FilterOptions:
    """Which gallery images may be found."""

    other_cameras: Annotated[
        bool, Option("--other-cameras", help="Only images of other cameras than the query's.")
    ] = False
    camids: Annotated[
        str | None,
        Option(metavar="C,C,...", help="Only images of these cameras, as in names: 1 for 0002_c1s1_….jpg."),
    ] = None
    since: Annotated[
        str | None,
        Option(
            metavar="TIME",
            help="Only images of this time or later: a number as in names (2000451 for frame 451 of sequence 2, "
            "…_c1s2_000451_….jpg), or a date for names such as …_c1_t1764086400000.jpg.",
        ),
    ] = None
    until: Annotated[str | None, Option(metavar="TIME", help="Only images of this time or earlier.")] = None
    threshold: Annotated[
        float | None,
        Option(help="Only images at this distance or less: 1 - cosine, or the squared Euclidean distance."),
    ] = None

    def search_filter(self) -> SearchFilter:
        """The same, parsed; raises InputError for what is not a camera or a time."""
        return SearchFilter(
            other_cameras=self.other_cameras,
            among_camids=None if self.camids is None else _parse_camids(self.camids),
            since=None if self.since is None else parse_time(self.since, "--since"),
            until=None if self.until is None else parse_time(self.until, "--until"),
        )


@dataclass(frozen=True)
class OutputOptions:
    """Where the answers go, beside the terminal."""

    sheet: Annotated[
        Path | None,
        Option(metavar="FILE.png", help="Draw a contact sheet: queries on the left, what was found beside."),
    ] = None
    json_file: JsonOption = None
    force: ForceOption = False


@with_option_groups
def search(
    gallery: GalleryArgument,
    queries: Annotated[
        list[str],
        Argument(
            metavar="QUERY...", help="Images, folders and patterns; or one file or folder of embeddings."
        ),
    ],
    artifact: GalleryArtifactOption = None,
    k: Annotated[int, Option("-k", min=1, help="Gallery images to find for each query.")] = 10,
    labels: LabelsOption = None,
    *,
    among: FilterOptions,
    output: OutputOptions,
    run: RunOptions,
) -> None:
    """Find the nearest images of a gallery, exactly, and print them.

    Persons, cameras and times are read from file names such as 0002_c1s1_000451_03.jpg, or from --labels. Queries that
    find nothing are told why.
    """
    if output.sheet is not None and output.sheet.suffix.lower() != ".png":
        raise InputError(f"--sheet {output.sheet}: expected a name that ends in .png.")
    if output.sheet is not None:
        check_replaceable(output.sheet, force=output.force)
    search_filter = among.search_filter()
    threshold = math.inf if among.threshold is None else among.threshold
    with open_gallery(gallery) as known:
        query_gallery = _query_gallery(known, queries, artifact, run, labels)
        answers = search_gallery(known, query_gallery, k, filter=search_filter, threshold=threshold)
        reason = why_empty(known, answers, search_filter, threshold)
    if output.sheet is not None:
        with replaced_when_whole(output.sheet) as temporary:
            answers_sheet(answers, num_ranks=k).save(temporary, "PNG")
    found = SearchRecord(
        gallery=gallery,
        manifest_sha256=known.manifest_sha256,
        metric=known.metric,
        queries=tuple(AnsweredQuery(**vars(answer.query), hits=answer.hits) for answer in answers),
    )
    _print(answers)
    if reason:
        log(f"{gallery}: {reason}")
    write_record(output.json_file, found)


def _query_gallery(
    gallery: Gallery | MilvusGallery,
    queries: list[str],
    artifact: Path | None,
    run: RunOptions,
    labels: Path | None,
) -> Gallery:
    """The queries, embedded: by the artifact, or already."""
    if artifact is None and labels is not None:
        raise InputError(
            "--labels is for query images: embeddings in a file have theirs from reidexport embed."
        )
    table = None if labels is None else read_label_file(labels)
    if artifact is None:
        if len(queries) == 1 and (Path(queries[0]).suffix in SUFFIXES or Path(queries[0]).is_dir()):
            return read_gallery(Path(queries[0]))
        raise InputError(
            "Query images must be embedded: pass --artifact MODEL, or one file or folder that reidexport embed wrote."
        )
    paths = find_images(queries, log=log)
    for note in [] if table is None else table.notes(paths):
        log(note)
    with run.open(artifact) as session:
        gallery.check_artifact(session.manifest.sha256)
        embedded = gallery_from_manifest(session.manifest)
        with progress_bar("embedding", len(paths)) as progress:
            known = labels_from_names(paths) if table is None else table.labels_of(paths)
            camids = camids_where_used(session.manifest, known[1].tolist())
            rows = session.embed(paths, camids=camids, progress=progress)
        for path, row in zip(paths, rows, strict=True):
            if fault := fault_of_row(row, embedded.metric):
                raise ImageError(f"{path}: {fault}. Leave the image out.")
        add_embeddings(embedded, rows, paths, table)
    return embedded


def _parse_camids(text: str) -> set[int]:
    """``"1,2"``, cameras from 1 as in names -> {0, 1}."""
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise InputError(f"--camids {text!r}: expected cameras from 1, for example 1,2.")
    return {int(number) - 1 for number in text.split(",")}


def _print(answers: list[Answer]) -> None:
    print(f"{'rank':>4}  {'distance':>8}  {'person':>6}  {'camera':>6}  {'time':>24}  image")
    for answer in answers:
        print(_line("", "", answer.query))
        for hit in answer.hits:
            print(_line(str(hit.rank), f"{hit.distance:.4f}", hit))


def _line(rank: str, distance: str, image: SeenImage) -> str:
    pid = "-" if image.pid is None else str(image.pid)
    camera = "-" if image.camid is None else str(image.camid + 1)
    return f"{rank:>4}  {distance:>8}  {pid:>6}  {camera:>6}  {time_text(image.time):>24}  {image.path}"
