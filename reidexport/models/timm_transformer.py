"""The transformers of timm that layumi's project averages over their tokens."""

from typing import Any

import timm
from torch import Tensor, nn

# By timm's name: height and width of the images that each is built for.
TRANSFORMERS_PX = {
    "swin_base_patch4_window7_224": (224, 224),
    "swinv2_base_window8_256": (256, 128),
    "vit_base_patch16_dinov3": (256, 128),
}


class TimmTransformer(nn.Module):
    """(B, 3, H, W) → (B, out_channels): the mean over all tokens, those of no patch included."""

    def __init__(self, name: str) -> None:
        super().__init__()
        trunk: Any = timm.create_model(
            name, pretrained=False, num_classes=0, global_pool="", img_size=TRANSFORMERS_PX[name]
        )
        for module in trunk.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False  # written out it is exported as plain operators
        self.trunk = trunk
        self.out_channels: int = trunk.num_features

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, out_channels)."""
        tokens: Tensor = self.trunk.forward_features(x)
        return tokens.flatten(1, -2).mean(1)
