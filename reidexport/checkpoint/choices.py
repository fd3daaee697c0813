"""What a user states about a checkpoint; needs no torch, so that commands can parse it at once."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class CheckpointChoices:
    """What to read a checkpoint as, where its weights do not show it, or instead of what its project usually does.

    Attributes:
        arch: the backbone to compare with, where the weights fit none or the wrong one.
        last_stride: stride of the last stage, instead of what the file or its family says.
        stem_relu: whether a ReLU follows a ResNet's stem, instead of what the file or its family says.
        pooling: "avg" or "gem" (p = 3) where the weights hold no power: fast-reid's AGW with ResNeSt looks like BoT.
        size: (height, width) in pixels, instead of the family's.
        weights: which of several sets of weights, such as "state_dict_ema", with dots between nested keys.
    """

    arch: str | None = None
    last_stride: Literal[1, 2] | None = None
    stem_relu: bool | None = None
    pooling: Literal["avg", "gem"] | None = None
    size: tuple[int, int] | None = None
    weights: str | None = None
