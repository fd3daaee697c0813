"""What a command writes: messages, and the result where ``--json FILE`` asks for it."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

log = partial(typer.echo, err=True)  # results go to stdout
JsonOption = Annotated[
    Path | None, Option("--json", metavar="FILE", help="Also write the result to FILE, as one JSON object.")
]
