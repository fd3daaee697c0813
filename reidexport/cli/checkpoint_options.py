"""The options of every command that reads a checkpoint: what its weights cannot tell."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Literal

from typer import Option

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.cli.artifact_options import parse_size

Pooling = Literal["avg", "gem"]

_stated = partial(Option, rich_help_panel="What a checkpoint cannot tell")


@dataclass(frozen=True)
class CheckpointOptions:
    """What a checkpoint cannot tell, but for the size of images."""

    arch: Annotated[str | None, _stated(help="The backbone, when it is not recognized.")] = None
    last_stride: Annotated[int | None, _stated(min=1, max=2, help="Stride of the last stage.")] = None
    stem_relu: Annotated[bool | None, _stated(help="Whether a ReLU follows a ResNet's stem.")] = None
    pooling: Annotated[Pooling | None, _stated(help="Global pooling; gem has p = 3.")] = None

    def choices(self, size: str | None) -> CheckpointChoices:
        """The options with ``--size``, as the user typed it.

        Raises:
            InputError: the size is not two positive numbers.
        """
        return CheckpointChoices(**asdict(self), size=parse_size(size) if size else None)
