"""fast-reid's MGN (Wang et al., ACM MM 2018): three copies of the last stages, pooled as a whole and in stripes."""

import torch
from torch import Tensor, nn

from reidexport.models.pooling import GeneralizedMeanPooling
from reidexport.models.resnet import ResNet

# In the order of the answer: the copy of the last stages, the stripe of its map and how many there are.
HEADS = {
    "b1": ("b1", 0, 1),
    "b2": ("b2", 0, 1),
    "b3": ("b3", 0, 1),
    "b21": ("b2", 0, 2),
    "b22": ("b2", 1, 2),
    "b31": ("b3", 0, 3),
    "b32": ("b3", 1, 3),
    "b33": ("b3", 2, 3),
}
_HEAD_DIM = 256


class MGN(nn.Module):
    """(B, 3, H, W) → (B, 2048): eight parts of 256 numbers, each before its BatchNorm.

    Args:
        last_stride: of the first copy's last stage; that of the two others is always 1.
        ibn: whether its ResNet-50 is an IBN-a.
    """

    def __init__(self, last_stride: int, ibn: bool) -> None:
        super().__init__()
        self.out_channels = _HEAD_DIM * len(HEADS)
        whole = ResNet(50, 1, stem_pool="ceil", ibn=ibn)
        first = whole.layer3[0]
        self.trunk = nn.Sequential(
            whole.conv1, whole.bn1, whole.relu, whole.maxpool, whole.layer1, whole.layer2, first
        )
        self.b1, self.b2, self.b3 = (_last_stages(stride, ibn) for stride in (last_stride, 1, 1))
        self.pools = nn.ModuleDict({head: GeneralizedMeanPooling() for head in HEADS})
        self.reductions = nn.ModuleDict({head: nn.Linear(2048, _HEAD_DIM, bias=False) for head in HEADS})

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 2048)."""
        x = self.trunk(x)
        maps = {"b1": self.b1(x), "b2": self.b2(x), "b3": self.b3(x)}
        answers = []
        for head, (copy, index, count) in HEADS.items():
            # Cut as torch.chunk does: the last stripe is the smallest.
            rows = -(-maps[copy].shape[2] // count)
            stripe = maps[copy][:, :, rows * index : rows * (index + 1)]
            answers.append(self.reductions[head](self.pools[head](stripe)))
        return torch.cat(answers, 1)


def _last_stages(last_stride: int, ibn: bool) -> nn.Sequential:
    """The rest of the third stage, and the fourth."""
    whole = ResNet(50, last_stride, ibn=ibn)
    return nn.Sequential(nn.Sequential(*whole.layer3[1:]), whole.layer4)
