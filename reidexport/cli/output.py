"""What commands print, and the option for the file of their result."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from reidexport.data import SameCamera
from reidexport.records.reading import check_record_file

log = partial(typer.echo, err=True)  # results go to stdout
JsonOption = Annotated[
    Path | None,
    Option(
        "--json",
        metavar="FILE",
        callback=check_record_file,
        help="Also write the result to FILE, as one JSON object; replaces an earlier result only.",
    ),
]
ForceOption = Annotated[bool, Option("--force", help="Replace the output, if it exists.")]

SAME_CAMERA_TEXTS: dict[SameCamera, str] = {
    "drop": "gallery images of a query's person by the query's own camera are left out",
    "keep": "gallery images of a query's person by the query's own camera count; the query image itself does not",
}


def text_table(rows: Sequence[Sequence[str]], num_names: int = 1) -> str:
    """Rows with aligned columns: the first ones, names, to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        [
            cell.ljust(width) if i < num_names else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)
