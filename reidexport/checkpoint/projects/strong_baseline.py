"""michuanhaohao/reid-strong-baseline, the paper's own code, and its forks."""

from reidexport.checkpoint.family import Family
from reidexport.models.baseline import RESNETS
from reidexport.models.trunk import TIMM_NAMES

STRONG_BASELINE = Family(
    name="reid-strong-baseline",
    signature=(r"^base\.",),
    # ResNet_IBN keeps ImageNet's fc, which its forward never uses.
    key_map=(
        (r"^base\.fc\..*", ""),
        (r"^base\.", "backbone."),
        (r"^bottleneck\.", "neck."),
        (r"^(gap|gem|global_pool)\.p$", "pool.p"),  # its forks with GeM
    ),
    backbones=(*RESNETS, "resnet50_ibn_a", *TIMM_NAMES),
    silent_stem=RESNETS,
    lookalikes="the ResNets of TransReID and person-reid-tiny-baseline (--no-stem-relu --stem-pool 2x2) and of "
    "SOLIDER-REID (--stem-relu --stem-pool 2x2); forks that put torchvision's ReLU and pooling back (--stem-relu), "
    "that pool with a fixed GeM (--pooling gem) or by the maximum (--pooling max)",
)
