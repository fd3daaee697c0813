"""``reidexport store``: embeddings into a gallery, in a file or in Milvus, and out of it into other files."""

from pathlib import Path
from typing import Annotated

import typer
from reidgallery.file import GALLERY_SUFFIX
from reidgallery.milvus.collection import IndexKind
from typer import Argument, Option

from reidexport.cli.output import ForceOption, log
from reidexport.cli.shared_options import (
    IncludeForgottenOption,
    LabelsOption,
    OnDuplicateOption,
    change_text,
)
from reidexport.data.label_file import read_label_file
from reidexport.embed.adding import AddingRules, OnDuplicate
from reidexport.errors import InputError
from reidexport.files import check_replaceable
from reidexport.gallery.milvus_address import is_milvus
from reidexport.progress import progress_bar


def store(
    source: Annotated[
        str,
        Argument(
            metavar="FROM",
            help="What reidexport embed wrote: *.gallery, *.npz, *.parquet, a folder of *.parquet; or a gallery in "
            "Milvus, to write to a file.",
        ),
    ],
    destination: Annotated[
        str,
        Argument(
            metavar="TO",
            help="A gallery to add to: *.gallery, milvus:FILE.db, or http(s)://HOST:PORT of a server; or a file to "
            "write a gallery to: *.parquet, *.npz.",
        ),
    ],
    index: Annotated[
        IndexKind | None,
        Option(
            help="What searches the gallery from now on. exact: every row; a new gallery's. approximate: HNSW, faster "
            "in large galleries, misses some. gpu-exact, gpu-approximate: the same on a server's GPU. Its recall is "
            "measured and printed."
        ),
    ] = None,
    on_duplicate: OnDuplicateOption = None,
    include_forgotten: IncludeForgottenOption = False,
    labels: LabelsOption = None,
    *,
    force: ForceOption = False,
) -> None:
    """Add embeddings to a gallery, which is made where there is none, or write all of a gallery to a file.

    In Milvus a path that is already there is replaced, unless --on-duplicate says otherwise: after an interruption, run
    the same again. A .gallery is replaced by a whole one at the end, and a path that is already there is an error,
    unless --on-duplicate says otherwise. Whom a gallery has forgotten is left out. One run at a time may store into a
    gallery in Milvus: two number their rows alike and replace each other's, silently. The server's token is read from
    the environment variable MILVUS_TOKEN.
    """
    from reidexport.gallery.storing import (
        WRITTEN_SUFFIXES,
        export_gallery,
        store_in_gallery,
        store_in_milvus,
    )

    path = Path(destination)
    if not is_milvus(destination) and index is not None:
        raise InputError("--index is for a gallery in Milvus that is stored into, not for a file.")
    if not is_milvus(destination) and path.suffix in WRITTEN_SUFFIXES:
        if on_duplicate or include_forgotten or labels:
            raise InputError(
                f"{destination}: --on-duplicate, --include-forgotten and --labels are for galleries that are added to. "
                "Leave them out."
            )
        check_replaceable(path, force=force)
        count = export_gallery(source, path, progress_bar=progress_bar)
        typer.echo(f"{destination}: {count} embeddings written")
        return
    if force:
        raise InputError(
            f"{destination}: --force is for .parquet and .npz; a gallery is added to. Leave it out."
        )
    table = None if labels is None else read_label_file(labels)
    default: OnDuplicate = "replace" if is_milvus(destination) else "error"
    rules = AddingRules(on_duplicate=on_duplicate or default, include_forgotten=include_forgotten)
    if path.suffix == GALLERY_SUFFIX and not is_milvus(destination):
        change = store_in_gallery(source, path, rules=rules, table=table, log=log)
        typer.echo(f"{destination}: {change_text(change)}")
        return
    if not is_milvus(destination) or is_milvus(source):
        raise InputError(
            f"{destination}: expected *.gallery, *.parquet, *.npz, milvus:FILE.db, or http(s)://HOST:PORT; and from a "
            "gallery in Milvus a file."
        )
    run = store_in_milvus(
        Path(source), destination, index=index, rules=rules, table=table, log=log, progress_bar=progress_bar
    )
    left_out = ""
    if run.num_duplicates_skipped or run.num_forgotten_skipped:
        left_out = (
            f", {run.num_duplicates_skipped} left out as the gallery has their paths, {run.num_forgotten_skipped} as "
            "forgotten"
        )
    typer.echo(f"{destination}: {run.num_added} embeddings added{left_out}, now {run.num_rows}")
    if run.recall:
        share, k, num_queries = run.recall
        typer.echo(
            f"{run.index} index: recall@{k} {share:.4f} against exact search, measured on {num_queries} of the rows"
        )
