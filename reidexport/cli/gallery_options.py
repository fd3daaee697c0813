"""The options of every command that searches a gallery."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

from reidgallery import Gallery, MilvusGallery
from typer import Argument, Option

from reidexport.embed.files import read_gallery
from reidexport.gallery.milvus_address import is_milvus, open_milvus

GalleryArgument = Annotated[
    str,
    Argument(
        metavar="GALLERY",
        help="What reidexport embed wrote: *.gallery, *.npz, *.parquet, a folder of *.parquet; or what reidexport "
        "store filled: milvus:FILE.db, http(s)://HOST:PORT.",
    ),
]
GalleryArtifactOption = Annotated[
    Path | None,
    Option("--artifact", metavar="ARTIFACT", help="What embedded the gallery, to embed query images."),
]


def open_gallery(gallery: str) -> AbstractContextManager[Gallery | MilvusGallery]:
    """The gallery behind a path or an address."""
    return open_milvus(gallery) if is_milvus(gallery) else nullcontext(read_gallery(Path(gallery)))
