"""``reidexport store``: embeddings from files into a gallery in Milvus, and from there into a Parquet file."""

from pathlib import Path
from typing import Annotated

import typer
from reidgallery.milvus.collection import IndexKind
from typer import Argument, Option

from reidexport.errors import InputError
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
        Argument(metavar="TO", help="milvus:FILE.db, or http(s)://HOST:PORT of a server; or FILE.parquet."),
    ],
    index: Annotated[
        IndexKind | None,
        Option(
            help="What searches the gallery from now on. exact: every row; a new gallery's. approximate: HNSW, faster "
            "in large galleries, misses some. gpu-exact, gpu-approximate: the same on a server's GPU. Its recall is "
            "measured and printed."
        ),
    ] = None,
) -> None:
    """Add embeddings to a gallery in Milvus, which is made where there is none, or write all of it to a file.

    A path that is already there is replaced: after an interruption, run the same again. One run at a time may store
    into a gallery: two number their rows alike and replace each other's, silently. The server's token is read from
    the environment variable MILVUS_TOKEN.
    """
    from reidexport.gallery.storing import export_from_milvus, store_in_milvus

    if is_milvus(source):
        if index is not None:
            raise InputError("--index is for a gallery in Milvus that is stored into, not for a file.")
        count = export_from_milvus(source, Path(destination), progress_bar=progress_bar)
        typer.echo(f"{destination}: {count} embeddings written")
        return
    if not is_milvus(destination):
        raise InputError(f"{destination}: expected milvus:FILE.db, or http(s)://HOST:PORT.")
    run = store_in_milvus(Path(source), destination, index=index, progress_bar=progress_bar)
    typer.echo(f"{destination}: {run.num_added} embeddings added, now {run.num_rows}")
    if run.recall:
        share, k, num_queries = run.recall
        typer.echo(
            f"{run.index} index: recall@{k} {share:.4f} against exact search, measured on {num_queries} of the rows"
        )
