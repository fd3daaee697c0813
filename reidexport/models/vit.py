"""Vision transformers (Dosovitskiy et al., ICLR 2021) as re-identification projects have them, with timm's names.

TransReID (He et al., ICCV 2021) adds overlapping patches, camera embeddings (SIE) and the jigsaw branch (JPM).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from reidexport.models.resnet import IBN

PATCH_PX = 16
STRIDES_PX = (16, 12)  # of published configurations
_STEM_CHANNELS = 64


@dataclass(frozen=True)
class Dimensions:
    """What makes a :class:`VisionTransformer` of one size.

    Attributes:
        width: of a token.
        depth: number of blocks.
        num_heads: of every attention.
        mlp_ratio: width of the hidden layer over the token's.
        qkv_bias: whether queries, keys and values have a bias.
        scale: of the attention's logits; None: the square root of a head's width, inverted.
    """

    width: int
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: int = 4
    qkv_bias: bool = True
    scale: float | None = None


VITS = {
    "vit_base_16": Dimensions(768),
    "vit_small_16": Dimensions(384, num_heads=6),  # DeiT's
    "vit_tiny_16": Dimensions(192, num_heads=3),
    "vit_small_16_8_blocks": Dimensions(768, 8, 8, 3, qkv_bias=False, scale=768**-0.5),  # timm's first ViT-S
}


@dataclass(frozen=True)
class TokenOptions:
    """How a transformer makes its tokens.

    Attributes:
        grid: patches down and across.
        stride_px: from patch to patch; less than 16 where they overlap.
        num_cameras: rows of the table of camera embeddings (TransReID's SIE), 0 where there is none.
        camera: whose row is added, from 1; None: no row is.
        camera_weight: what the row is multiplied by.
        conv_stem: whether convolutions come first (PersonViT's stem before patches of half the size, CLIP's ResNet):
            its patches never overlap.
    """

    grid: tuple[int, int]
    stride_px: int = PATCH_PX
    num_cameras: int = 0
    camera: int | None = None
    camera_weight: float = 1.0
    conv_stem: bool = False


def patch_grid(height_px: int, width_px: int, stride_px: int) -> tuple[int, int]:
    """Patches down and across an image."""
    return (height_px - PATCH_PX) // stride_px + 1, (width_px - PATCH_PX) // stride_px + 1


def tokens_in_size(tokens: TokenOptions, size: tuple[int, int]) -> TokenOptions:
    """The tokens of images of another size: as many in another arrangement where they can be, else more or fewer."""
    num_patches = tokens.grid[0] * tokens.grid[1]
    for stride_px in (tokens.stride_px, *(() if tokens.conv_stem else STRIDES_PX)):
        grid = patch_grid(*size, stride_px)
        if grid[0] * grid[1] == num_patches:
            return replace(tokens, grid=grid, stride_px=stride_px)
    return replace(tokens, grid=patch_grid(*size, tokens.stride_px))


def resized_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Position embeddings of another grid, by bilinear interpolation, as TransReID and CLIP-ReID resize theirs.

    Args:
        positions: (1, 1 + rows · columns, D), the class token's first.
        old: (rows, columns) that they are of.
        new: (rows, columns) wanted.

    Returns:
        (1, 1 + rows · columns, D).
    """
    class_token, patches = positions[:, :1], positions[:, 1:]
    as_map = patches.reshape(1, *old, -1).permute(0, 3, 1, 2)
    resized = functional.interpolate(as_map, size=new, mode="bilinear", align_corners=False)
    return torch.cat((class_token, resized.flatten(2).transpose(1, 2)), 1)


def resized_grid(
    state_dict: dict[str, Tensor], old: tuple[int, int], new: tuple[int, int]
) -> dict[str, Tensor]:
    """A network's tensors with its position embeddings for another grid of patches.

    As many patches in another arrangement were laid out so from the start: their embeddings stay.
    """
    if old[0] * old[1] == new[0] * new[1]:
        return state_dict
    return {
        key: resized_positions(tensor, old, new) if key.endswith("pos_embed") else tensor
        for key, tensor in state_dict.items()
    }


class Attention(nn.Module):
    """Multi-head self-attention whose queries may be those of the first tokens only."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        width, self.num_heads = dimensions.width, dimensions.num_heads
        self.scale = dimensions.scale or (width // self.num_heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width, bias=dimensions.qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, num_queries: int | None = None) -> Tensor:
        """(B, N, D) → (B, num_queries or N, D)."""
        length, width = tokens.shape[1:]
        parts = self.qkv(tokens).reshape(-1, length, 3, self.num_heads, width // self.num_heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4).unbind(0)
        logits = (queries[:, :, :num_queries] * self.scale) @ keys.transpose(2, 3)
        attended = (logits.softmax(-1) @ values).transpose(1, 2)
        answer: Tensor = self.proj(attended.reshape(-1, num_queries or length, width))
        return answer


class Mlp(nn.Module):
    """Linear, activation, linear, per token; (B, N, D) → the same shape."""

    def __init__(self, width: int, hidden: int, activation: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, hidden), activation(), nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Keeps the shape."""
        answer: Tensor = self.fc2(self.act(self.fc1(tokens)))
        return answer


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(
        self, dimensions: Dimensions, activation: type[nn.Module] = nn.GELU, eps: float = 1e-6
    ) -> None:
        super().__init__()
        width = dimensions.width
        self.norm1, self.attn = nn.LayerNorm(width, eps), Attention(dimensions)
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = Mlp(width, width * dimensions.mlp_ratio, activation)

    def forward(self, tokens: Tensor, num_queries: int | None = None) -> Tensor:
        """(B, N, D) → (B, num_queries or N, D): what the other tokens would become is not computed."""
        tokens = tokens[:, :num_queries] + self.attn(self.norm1(tokens), num_queries)
        answer: Tensor = tokens + self.mlp(self.norm2(tokens))
        return answer


class PatchEmbed(nn.Module):
    """One convolution that makes a token of every patch, or PersonViT's stem of four."""

    def __init__(self, width: int, options: TokenOptions) -> None:
        super().__init__()
        if options.conv_stem:
            self.conv: nn.Module = _conv_stem()
            self.proj = nn.Conv2d(_STEM_CHANNELS, width, PATCH_PX // 2, PATCH_PX // 2)
        else:
            self.conv = nn.Identity()
            self.proj = nn.Conv2d(3, width, PATCH_PX, options.stride_px)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, rows · columns, D)."""
        tokens: Tensor = self.proj(self.conv(images)).flatten(2).transpose(1, 2)
        return tokens


def _conv_stem() -> nn.Sequential:
    """(B, 3, H, W) → (B, 64, H/2, W/2)."""
    channels = _STEM_CHANNELS
    return nn.Sequential(
        *(nn.Conv2d(3, channels, 7, 2, 3, bias=False), IBN(channels), nn.ReLU(inplace=True)),
        *(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), IBN(channels), nn.ReLU(inplace=True)),
        *(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ),
    )


class VisionTransformer(nn.Module):
    """Images to the class token of the last layer, and with ``jpm`` to those of four parts, too.

    What the last block would make of the patches is used by nothing, and not computed.

    Args:
        dimensions: its size.
        options: its tokens.
        jpm: TransReID's jigsaw branch: two last blocks side by side, one for all patches and one for each quarter
            of the shuffled ones (its section 3.2); the answer is (global, part / 4, part / 4, part / 4, part / 4).
    """

    def __init__(self, dimensions: Dimensions, options: TokenOptions, *, jpm: bool = False) -> None:
        super().__init__()
        width, depth = dimensions.width, dimensions.depth
        self.out_channels = 5 * width if jpm else width
        self.camera, self.camera_weight = options.camera, options.camera_weight
        self.patch_embed = PatchEmbed(width, options)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.num_patches = options.grid[0] * options.grid[1]
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.num_patches, width))
        if options.num_cameras:
            self.sie_embed = nn.Parameter(torch.zeros(options.num_cameras, 1, width))
        self.blocks = nn.ModuleList(Block(dimensions) for _ in range(depth - 1 if jpm else depth))
        self.jpm = jpm
        if jpm:
            self.b1, self.b2 = (_last_block(dimensions) for _ in range(2))
        else:
            self.norm = nn.LayerNorm(width, 1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, D), or (B, 5 · D) with the jigsaw branch."""
        added = self.pos_embed + functional.pad(self.cls_token, (0, 0, 0, self.num_patches))
        if self.camera is not None:
            added = added + self.camera_weight * self.sie_embed[self.camera - 1]
        # The class token comes out of the padding: it is the same for all images.
        tokens = functional.pad(self.patch_embed(images), (0, 0, 1, 0)) + added
        for block in list(self.blocks)[: None if self.jpm else -1]:
            tokens = block(tokens)
        if self.jpm:
            return self._jigsaw(tokens)
        answer: Tensor = self.norm(self.blocks[-1](tokens, 1)).flatten(1)
        return answer

    def _jigsaw(self, tokens: Tensor) -> Tensor:
        class_token, length = tokens[:, :1], self.num_patches // 4
        shuffled = shuffle_patches(tokens, self.num_patches)
        answers = [self._last(self.b1, tokens)]
        for start in range(0, 4 * length, length):
            part = torch.cat((class_token, shuffled[:, start : start + length]), 1)
            answers.append(self._last(self.b2, part) / 4)
        return torch.cat(answers, 1)

    @staticmethod
    def _last(block_and_norm: nn.Sequential, tokens: Tensor) -> Tensor:
        block, norm = block_and_norm
        answer: Tensor = norm(block(tokens, 1)).flatten(1)
        return answer


def _last_block(dimensions: Dimensions) -> nn.Sequential:
    return nn.Sequential(Block(dimensions), nn.LayerNorm(dimensions.width, 1e-6))


def shuffle_patches(tokens: Tensor, num_patches: int) -> Tensor:
    """TransReID's shift and shuffle of the patches (its section 3.2), in two groups as in all of its configurations.

    Its shift of 5 counts the class token's place, so that 4 patches go from the start to the end.

    Args:
        tokens: (B, 1 + num_patches, D), the class token first.
        num_patches: the number of patches.

    Returns:
        (B, num_patches, D), without the class token; where their number is odd, the last but one comes twice.
    """
    parts = [tokens[:, 5:], tokens[:, 1:5]]
    if num_patches % 2:
        parts.append(tokens[:, 3:4])
    half = (num_patches + 1) // 2
    grouped = torch.cat(parts, 1).reshape(-1, 2, half, tokens.shape[2])
    return grouped.transpose(1, 2).flatten(1, 2)
