"""What a user states about a checkpoint; needs no torch, so that commands can parse it at once."""

from dataclasses import dataclass
from typing import Literal

from reidruntime.artifact.manifest import ChannelOrder, Channels3, Pooling, ResizeKernel, StemPool


@dataclass(frozen=True, kw_only=True)
class CheckpointChoices:
    """What to read a checkpoint as, where its weights do not show it, or instead of what its project usually does.

    Attributes:
        arch: the backbone to compare with, where the weights fit none or the wrong one.
        last_stride: stride of the last stage.
        stem_relu: whether a ReLU follows a ResNet's stem.
        stem_pool: the max pooling of a ResNet's stem.
        pooling: the global pooling.
        gem_p: its power where it is "gem"; default: 3.
        batch_norm_eps: what every BatchNorm adds to its variances.
        size: (height, width) in pixels.
        mean: per channel, of pixels in [0, 1].
        std: likewise.
        channel_order: that the network takes.
        resize: the kernel that images are resized with.
        camera: whose camera embedding a transformer adds, from 1.
        camera_weight: what it is multiplied by.
        semantic_weight: of SOLIDER's semantic embedding, from 0 (appearance) to 1 (semantics).
        unit_parts: whether each part of a LightMBN's feature has unit length.
        weights: which of several sets of weights, such as "state_dict_ema", with dots between nested keys.
    """

    arch: str | None = None
    last_stride: Literal[1, 2] | None = None
    stem_relu: bool | None = None
    stem_pool: StemPool | None = None
    pooling: Pooling | None = None
    gem_p: float | None = None
    batch_norm_eps: float | None = None
    size: tuple[int, int] | None = None
    mean: Channels3 | None = None
    std: Channels3 | None = None
    channel_order: ChannelOrder | None = None
    resize: ResizeKernel | None = None
    camera: int | None = None
    camera_weight: float | None = None
    semantic_weight: float | None = None
    unit_parts: bool | None = None
    weights: str | None = None
