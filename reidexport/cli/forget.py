"""``reidexport forget``: persons and images out of a gallery."""

import re
from typing import Annotated

import typer
from typer import Argument, Option

from reidexport.cli.output import log
from reidexport.errors import InputError


def forget(
    gallery: Annotated[
        str, Argument(metavar="GALLERY", help="*.gallery, milvus:FILE.db, or http(s)://HOST:PORT.")
    ],
    pids: Annotated[
        str | None,
        Option(metavar="P,P,...", help="The persons, as in names: 2 for 0002_c1s1_….jpg; -1 for junk."),
    ] = None,
    paths: Annotated[
        list[str] | None,
        Option(
            metavar="PATH",
            help="An image by its path, as the gallery has it, or a pattern such as 'crops/a/*'; may be repeated.",
        ),
    ] = None,
) -> None:
    """Remove persons and images from a gallery: from now on no search, count or export finds them.

    A .gallery file is replaced by one without them. Milvus rewrites its files in its own time: until then what was
    removed can be dug up from the disk. The gallery keeps a list of whom it has forgotten: reidexport embed --append
    and reidexport store leave them out. Exit status: 0 some were removed, 1 nobody was found, 2 bad input.
    """
    from reidexport.gallery.forgetting import forget_persons

    if pids is None and not paths:
        raise InputError("Whom to forget is missing. Pass --pids, for example 7,9, or --paths, or both.")
    if pids is not None and not re.fullmatch(r"(-1|\d{1,18})(,(-1|\d{1,18}))*", pids):
        raise InputError(f"--pids {pids!r}: expected persons, for example 7,9.")
    run = forget_persons(gallery, {int(pid) for pid in pids.split(",")} if pids else (), paths or ())
    for reason in run.not_found:
        log(f"{gallery}: {reason}")
    typer.echo(f"{gallery}: {run.num_removed} embeddings removed, {run.num_left} left")
    if not run.num_removed:
        raise typer.Exit(1)
