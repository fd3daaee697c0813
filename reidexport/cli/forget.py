"""``reidexport forget``: persons out of a gallery."""

import re
from typing import Annotated

import typer
from typer import Argument, Option

from reidexport.errors import InputError


def forget(
    gallery: Annotated[
        str, Argument(metavar="GALLERY", help="*.gallery, milvus:FILE.db, or http(s)://HOST:PORT.")
    ],
    pids: Annotated[
        str, Option(metavar="P,P,...", help="The persons, as in names: 2 for 0002_c1s1_….jpg; -1 for junk.")
    ],
) -> None:
    """Remove persons from a gallery: from now on no search, count or export finds them.

    A .gallery file is replaced by one without them. Milvus rewrites its files in its own time: until then what was
    removed can be dug up from the disk.
    """
    from reidexport.gallery.storing import forget_persons

    if not re.fullmatch(r"(-1|\d+)(,(-1|\d+))*", pids):
        raise InputError(f"--pids {pids!r}: expected persons, for example 7,9.")
    num_removed, num_left = forget_persons(gallery, {int(pid) for pid in pids.split(",")})
    typer.echo(f"{gallery}: {num_removed} embeddings removed, {num_left} left")
