"""``reidexport store``: embeddings from a file into a gallery in Milvus."""

from pathlib import Path
from typing import Annotated

import typer

from reidexport.embedding_files import read_gallery
from reidexport.errors import InputError
from reidexport.milvus_address import is_milvus, open_milvus
from reidexport.progress import progress_bar


def store(
    embeddings: Annotated[
        Path,
        typer.Argument(
            metavar="EMBEDDINGS", help="What reidexport embed wrote: *.gallery, *.npz, *.parquet or a folder."
        ),
    ],
    gallery: Annotated[
        str, typer.Argument(metavar="GALLERY", help="milvus:FILE.db, or http(s)://HOST:PORT of a server.")
    ],
) -> None:
    """Add embeddings to a gallery in Milvus, which is made where there is none.

    A path that is already there is replaced: after an interruption, run the same again. The server's token is read from
    the environment variable MILVUS_TOKEN.
    """
    if not is_milvus(gallery):
        raise InputError(f"{gallery}: expected milvus:FILE.db, or http(s)://HOST:PORT.")
    new = read_gallery(embeddings)
    with open_milvus(gallery, new.dim, metric=new.metric, manifest_sha256=new.manifest_sha256) as stored:
        with progress_bar("storing", len(new)) as progress:
            stored.extend(new, progress)
        typer.echo(f"{gallery}: {len(new)} embeddings added, now {len(stored)}")
