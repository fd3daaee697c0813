"""What a command writes: messages, and the result where ``--json FILE`` asks for it."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from reidexport.files import replaced_when_whole

log = partial(typer.echo, err=True)  # results go to stdout
JsonOption = Annotated[
    Path | None, Option("--json", metavar="FILE", help="Also write the result to FILE, as one JSON object.")
]


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    """Write one object to ``path``, or nothing for None; an old file is replaced only by a whole new one."""
    if path is not None:
        with replaced_when_whole(path) as temporary:
            temporary.write_text(json.dumps(_finite(result), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity: they become null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
