"""CLIP's image encoders (Radford et al., ICML 2021) as CLIP-ReID (Li et al., AAAI 2023) has them.

Each answers an image's feature and, behind it, the feature's projection into the space that CLIP shares with texts.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from reidexport.models.vit import PATCH_PX, VITS, Block, TokenOptions


class QuickGELU(nn.Module):
    """CLIP's approximation of GELU; keeps the shape."""

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        return x * torch.sigmoid(1.702 * x)


class ClipVisionTransformer(nn.Module):
    """ViT-B/16: images to the class token of the last layer and its projection.

    Its camera embedding is added to the class token alone.
    """

    def __init__(self, options: TokenOptions) -> None:
        super().__init__()
        dimensions = VITS["vit_base_16"]
        width, projected = dimensions.width, 512
        self.out_channels = width + projected
        self.camera, self.camera_weight = options.camera, options.camera_weight
        self.patch_embed = nn.Conv2d(3, width, PATCH_PX, options.stride_px, bias=False)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + options.grid[0] * options.grid[1], width))
        if options.num_cameras:
            self.sie_embed = nn.Parameter(torch.zeros(options.num_cameras, width))
        self.norm_pre, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(dimensions, QuickGELU, eps=1e-5) for _ in range(dimensions.depth))
        self.proj = nn.Linear(width, projected, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 768 + 512)."""
        class_token: Tensor = self.cls_token
        if self.camera is not None:
            class_token = class_token + self.camera_weight * self.sie_embed[self.camera - 1]
        added = self.pos_embed + functional.pad(class_token, (0, 0, 0, self.pos_embed.shape[1] - 1))
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        # The class token comes out of the padding: it is the same for all images.
        tokens = self.norm_pre(functional.pad(patches, (0, 0, 1, 0)) + added)
        for block in list(self.blocks)[:-1]:
            tokens = block(tokens)
        feature = self.norm(self.blocks[-1](tokens, 1)).flatten(1)
        return torch.cat((feature, self.proj(feature)), 1)


class AttentionPool(nn.Module):
    """Attention of a map's mean to itself and to every place of the map.

    Args:
        width: channels of the map.
        num_places: of the map.
        num_heads: of the attention.
        out_channels: of the answer.
    """

    def __init__(self, width: int, num_places: int, num_heads: int, out_channels: int) -> None:
        super().__init__()
        self.length, self.num_heads = 1 + num_places, num_heads
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + num_places, width))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) → (B, out_channels)."""
        places = x.flatten(2).transpose(1, 2)
        tokens = torch.cat((places.mean(1, keepdim=True), places), 1) + self.pos_embed
        queries = self._heads(self.q_proj(tokens[:, :1]), 1)
        keys, values = (self._heads(part(tokens), self.length) for part in (self.k_proj, self.v_proj))
        logits = (queries * (self.k_proj.out_features // self.num_heads) ** -0.5) @ keys.transpose(2, 3)
        answer: Tensor = self.c_proj((logits.softmax(-1) @ values).flatten(1))
        return answer

    def _heads(self, tokens: Tensor, length: int) -> Tensor:
        """(B, length, width) → (B, heads, length, width / heads)."""
        width = self.k_proj.out_features
        return tokens.reshape(-1, length, self.num_heads, width // self.num_heads).transpose(1, 2)


class Bottleneck(nn.Module):
    """A bottleneck block that down-samples by average pooling, on its main path before the last convolution."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.avgpool = _average_pooling(stride)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if in_channels != 4 * width:
            conv, bn = nn.Conv2d(in_channels, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
            self.downsample = nn.Sequential(OrderedDict(pool=_average_pooling(stride), conv=conv, bn=bn))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, 4 · width, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.avgpool(self.relu(self.bn2(self.conv2(out))))
        answer: Tensor = self.relu(self.bn3(self.conv3(out)) + self.downsample(x))
        return answer


def _average_pooling(stride: int) -> nn.Module:
    return nn.AvgPool2d(stride) if stride > 1 else nn.Identity()


class ClipResNet(nn.Module):
    """RN50 with a last stride of 1: images to the mean of the last map and to what attention makes of that map."""

    def __init__(self, options: TokenOptions) -> None:
        super().__init__()
        width, projected = 2048, 1024
        self.out_channels = width + projected
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(32, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        self.relu, self.avgpool = nn.ReLU(inplace=True), nn.AvgPool2d(2)
        self.layer1, self.layer2 = _stage(64, 64, 3, 1), _stage(256, 128, 4, 2)
        self.layer3, self.layer4 = _stage(512, 256, 6, 2), _stage(1024, 512, 3, 1)
        self.attnpool = AttentionPool(width, options.grid[0] * options.grid[1], 32, projected)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 2048 + 1024)."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.avgpool(self.relu(self.bn3(self.conv3(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return torch.cat((x.mean((2, 3)), self.attnpool(x)), 1)


def _stage(in_channels: int, width: int, depth: int, stride: int) -> nn.Sequential:
    first = Bottleneck(in_channels, width, stride)
    return nn.Sequential(first, *(Bottleneck(4 * width, width, 1) for _ in range(depth - 1)))


CLIP_VIT, CLIP_RESNET = "clip_vit_base_16", "clip_resnet50"
CLIP_ENCODERS: dict[str, type[ClipVisionTransformer | ClipResNet]] = {
    CLIP_VIT: ClipVisionTransformer,
    CLIP_RESNET: ClipResNet,
}
