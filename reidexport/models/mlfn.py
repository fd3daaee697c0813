"""MLFN (Chang et al., CVPR 2018) as torchreid has it, with its parameter names."""

import torch
from torch import Tensor, nn

_NUM_FACTORS = 32
_EMBEDDED = 1024
# Of each stage: channels, blocks, stride of the first block, hidden channels of the factors' selection.
_STAGES = (
    (256, 3, 1, (128, 64)),
    (512, 4, 2, (256, 128)),
    (1024, 6, 2, (512, 128)),
    (2048, 3, 2, (512, 128)),
)


class MLFNBlock(nn.Module):
    """A ResNeXt block whose groups are latent factors, each weighted by the selection for the image."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, hidden: tuple[int, int]) -> None:
        super().__init__()
        mid_channels = out_channels // 2
        self.fm_conv1 = nn.Conv2d(in_channels, mid_channels, 1, bias=False)
        self.fm_bn1 = nn.BatchNorm2d(mid_channels)
        self.fm_conv2 = nn.Conv2d(mid_channels, mid_channels, 3, stride, 1, groups=_NUM_FACTORS, bias=False)
        self.fm_bn2 = nn.BatchNorm2d(mid_channels)
        self.fm_conv3 = nn.Conv2d(mid_channels, out_channels, 1, bias=False)
        self.fm_bn3 = nn.BatchNorm2d(out_channels)
        self.fsm = _selection(in_channels, hidden)
        self.downsample: nn.Module = nn.Identity()
        if in_channels != out_channels or stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C_in, H, W) → (B, C_out, H / stride, W / stride), and the selection (B, 32, 1, 1)."""
        selection = self.fsm(x)
        factors = torch.relu(self.fm_bn1(self.fm_conv1(x)))
        factors = torch.relu(self.fm_bn2(self.fm_conv2(factors)))
        selected = torch.unflatten(factors, 1, (_NUM_FACTORS, -1)) * selection.unsqueeze(2)
        recovered = torch.relu(self.fm_bn3(self.fm_conv3(selected.flatten(1, 2))))
        return torch.relu(self.downsample(x) + recovered), selection


class MapMean(nn.Module):
    """(B, C, H, W) → (B, C, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, 1, 1)."""
        return x.mean((2, 3), keepdim=True)


def _selection(in_channels: int, hidden: tuple[int, int]) -> nn.Sequential:
    """The factor selection module: (B, C, H, W) → weights between 0 and 1, (B, 32, 1, 1)."""
    layers: list[nn.Module] = [MapMean()]
    for channels in (*hidden, _NUM_FACTORS):
        layers += [nn.Conv2d(in_channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        in_channels = channels
    return nn.Sequential(*layers[:-1], nn.Sigmoid())


def _projection(in_channels: int) -> nn.Sequential:
    """1×1 convolution, batch norm, ReLU: (B, C, 1, 1) → (B, 1024, 1, 1)."""
    conv = nn.Conv2d(in_channels, _EMBEDDED, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(_EMBEDDED), nn.ReLU(inplace=True))


class MLFN(nn.Module):
    """(B, 3, H, W) → (B, 1024): the mean of two projections, of the last map and of all 16 selections."""

    out_channels = _EMBEDDED

    def __init__(self) -> None:
        super().__init__()
        channels = 64
        self.conv1, self.bn1 = nn.Conv2d(3, channels, 7, 2, 3), nn.BatchNorm2d(channels)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.feature = nn.ModuleList()
        for out_channels, num_blocks, stride, hidden in _STAGES:
            for block in range(num_blocks):
                self.feature.append(MLFNBlock(channels, out_channels, 1 if block else stride, hidden))
                channels = out_channels
        self.fc_x = _projection(channels)
        self.fc_s = _projection(_NUM_FACTORS * len(self.feature))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 1024)."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        selections = []
        for block in self.feature:
            x, selection = block(x)
            selections.append(selection)
        projected: Tensor = self.fc_x(x.mean((2, 3), keepdim=True)) + self.fc_s(torch.cat(selections, 1))
        return projected.flatten(1) * 0.5
