"""From a map to one number for each channel."""

import torch
from torch import Tensor, nn


class GeneralizedMeanPooling(nn.Module):
    """GeM (Radenovic et al., 2018) with fast-reid's clamp at 1e-6; p is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C)."""
        return x.clamp(min=1e-6).pow(self.p).mean((2, 3)).pow(1.0 / self.p)


class GlobalAveragePooling(nn.Module):
    """Mean over the map."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C)."""
        return x.mean((2, 3))


class GlobalMaxPooling(nn.Module):
    """Maximum over the map."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C)."""
        return x.amax((2, 3))
