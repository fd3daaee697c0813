"""The options of every command that reads a checkpoint: what its weights cannot tell."""

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from reidexport.cli.artifact_options import parse_size
from reidexport.evaluation.opening import CheckpointChoices

Pooling = Literal["avg", "gem"]

_PANEL = "What a checkpoint cannot tell"


@dataclass(frozen=True)
class CheckpointOptions:
    """What a checkpoint cannot tell, but for the size of images."""

    arch: Annotated[
        str | None, typer.Option(help="The backbone, when it is not recognized.", rich_help_panel=_PANEL)
    ] = None
    last_stride: Annotated[
        int | None, typer.Option(min=1, max=2, help="Stride of the last stage.", rich_help_panel=_PANEL)
    ] = None
    stem_relu: Annotated[
        bool | None,
        typer.Option(
            "--stem-relu/--no-stem-relu",
            help="Whether a ReLU follows a ResNet's stem.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    pooling: Annotated[
        Pooling | None, typer.Option(help="Global pooling; gem has p = 3.", rich_help_panel=_PANEL)
    ] = None

    def choices(self, size: str | None) -> CheckpointChoices:
        """The options with ``--size``, as the user typed it.

        Raises:
            InputError: the size is not two positive numbers.
        """
        return CheckpointChoices(
            arch=self.arch,
            last_stride=None if self.last_stride is None else (1 if self.last_stride == 1 else 2),
            stem_relu=self.stem_relu,
            pooling=self.pooling,
            size=parse_size(size) if size else None,
        )
