"""The options of every command that reads a checkpoint: what its weights cannot tell."""

from typing import Annotated, Literal

import typer

from reidexport.cli.artifact_options import parse_size, parse_stride
from reidexport.opening import CheckpointChoices

Pooling = Literal["avg", "gem"]

_PANEL = "What a checkpoint cannot tell"

ArchOption = Annotated[
    str | None, typer.Option(help="The backbone, when it is not recognised.", rich_help_panel=_PANEL)
]
LastStrideOption = Annotated[
    int | None, typer.Option(min=1, max=2, help="Stride of the last stage.", rich_help_panel=_PANEL)
]
StemReluOption = Annotated[
    bool | None,
    typer.Option(
        "--stem-relu/--no-stem-relu", help="Whether a ReLU follows a ResNet's stem.", rich_help_panel=_PANEL
    ),
]
PoolingOption = Annotated[
    Pooling | None, typer.Option(help="Global pooling; gem has p = 3.", rich_help_panel=_PANEL)
]


def parse_choices(
    arch: str | None,
    last_stride: int | None,
    stem_relu: bool | None,
    pooling: Pooling | None,
    size: str | None,
) -> CheckpointChoices:
    """The options above and ``--size``, as the user typed them.

    Raises:
        InputError: the size is not two positive numbers.
    """
    return CheckpointChoices(
        arch=arch,
        last_stride=parse_stride(last_stride),
        stem_relu=stem_relu,
        pooling=pooling,
        size=parse_size(size) if size else None,
    )
