"""``reidexport inspect``: what is this file?"""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from reidexport.cli.evidence import EvidenceOptions, check_strict, exit_where_strict, tested
from reidexport.cli.option_groups import with_option_groups
from reidexport.cli.shared_options import CheckpointOptions, PixelOptions
from reidexport.records.inspection import CheckpointDescription

_MOST_SHOWN = 10


@with_option_groups
def inspect(
    file: Annotated[Path, Argument(help="A checkpoint, an ONNX file, an engine or embeddings.")],
    json_: Annotated[bool, Option("--json", help="Print one JSON object.")] = False,
    *,
    pixels: PixelOptions,
    checkpoint: CheckpointOptions,
    evidence: EvidenceOptions,
) -> None:
    """Say what a file is: checkpoint, ONNX, engine or embeddings, and what it holds. Nothing in it is run."""
    from reidexport.evaluation.inspection import inspect_file
    from reidexport.records.reading import record_text

    check_strict(evidence.strict, evidence.images)
    test = partial(tested, images=evidence.images, depth=evidence.depth) if evidence.images else None
    description = inspect_file(file, checkpoint.choices(pixels), test)
    if json_:
        print(record_text(description))
    else:
        for line in _lines(description.model_dump(mode="json", exclude={"version", "evidence"}), 0):
            print(line)
    if isinstance(description, CheckpointDescription):
        exit_where_strict(evidence.strict, description.evidence)


def _lines(content: dict[str, Any], depth: int) -> list[str]:
    lines = []
    for key, value in content.items():
        label = "  " * depth + key
        if isinstance(value, dict) and depth == 0 and key == "manifest":
            lines += [label, *_lines(value, 1)]
        elif isinstance(value, dict):
            nested = {
                name: item for name, item in value.items() if isinstance(item, dict | list) and len(item) > 3
            }
            text = ", ".join(f"{name} {item}" for name, item in value.items() if name not in nested)
            lines += [f"{label:<18} {text}", *(_shortened(name, item) for name, item in nested.items())]
        elif isinstance(value, list) and value and isinstance(value[0], str):
            lines += [f"{label if i == 0 else '':<18} {item}" for i, item in enumerate(value)]
        else:
            lines.append(f"{label:<18} {value}")
    return lines


def _shortened(name: str, items: dict[str, Any] | list[Any]) -> str:
    """The first of many facts on a line of their own."""
    if isinstance(items, dict):
        facts = [
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in items.items()
        ]
    else:
        facts = items
    more = f" … and {len(facts) - _MOST_SHOWN} more (--json)" if len(facts) > _MOST_SHOWN else ""
    return f"    {name:<14} " + ", ".join(map(str, facts[:_MOST_SHOWN])) + more
