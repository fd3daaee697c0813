"""``reidexport inspect``: what is this file?"""

from pathlib import Path
from typing import Annotated, Any

import typer


def inspect(
    file: Annotated[Path, typer.Argument(help="A checkpoint, an ONNX file or an engine.")],
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a file is: checkpoint, ONNX or engine, and what it holds. Nothing in it is run."""
    import json

    from reidexport.inspection import inspect_file

    description = inspect_file(file)
    if json_:
        print(json.dumps(description, indent=2))
        return
    for line in _lines(description, 0):
        print(line)


def _lines(content: dict[str, Any], depth: int) -> list[str]:
    lines = []
    for key, value in content.items():
        label = "  " * depth + key
        if isinstance(value, dict) and depth == 0 and key == "manifest":
            lines += [label, *_lines(value, 1)]
        elif isinstance(value, dict):
            text = ", ".join(f"{name} {item}" for name, item in value.items())
            lines.append(f"{label:<18} {text}")
        elif isinstance(value, list) and value and isinstance(value[0], str):
            lines += [f"{label if i == 0 else '':<18} {item}" for i, item in enumerate(value)]
        else:
            lines.append(f"{label:<18} {value}")
    return lines
