"""The ``--json FILE`` option."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from reidexport.files import replaced_when_whole

JsonOption = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Also write the result to FILE, as one JSON object."),
]


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    """Write one object to ``path``, or nothing for None; an old file is replaced only by a whole new one."""
    if path is not None:
        with replaced_when_whole(path) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n")
