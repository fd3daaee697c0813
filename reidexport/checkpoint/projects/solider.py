"""tinyvision/SOLIDER-REID, a child of TransReID with Swin transformers."""

from collections.abc import Sequence

from reidexport.checkpoint.family import HALF, Family, Shapes
from reidexport.models.baseline import BaselineArchitecture
from reidexport.models.swin import SWINS

_SEMANTIC_WEIGHT = 0.2  # of the commands that its results were made with; its defaults have 1.0


def _candidates(found: Shapes) -> Sequence[BaselineArchitecture]:
    """The three sizes, with the semantic embedding where there are tensors of it."""
    has_embedding = any(".semantic_embed." in key for key in found)
    weight = _SEMANTIC_WEIGHT if has_embedding else None
    return [BaselineArchitecture(backbone, None, semantic_weight=weight) for backbone in SWINS]


SOLIDER = Family(
    name="SOLIDER-REID",
    signature=(r"^base\.patch_embed\.projection\.", r"^base\.stages\."),
    key_map=(
        (r"^base\.norm[012]\..*", ""),  # norms of maps that training alone looks at
        (r"^base\.semantic_embed_[wb]\.3\..*", ""),  # behind the last map, where nothing is
        (r"^base\.semantic_embed_w\.(\d)\.", r"base.stages.\1.semantic_embed.scale."),
        (r"^base\.semantic_embed_b\.(\d)\.", r"base.stages.\1.semantic_embed.shift."),
        (r"^base\.norm3\.", "base.norm."),
        (r"^base\.", "backbone."),
        (r"\.projection\.", ".proj."),
        (r"\.attn\.w_msa\.", ".attn."),
        (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
        (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
        (r"^fcneck\.", "reduction."),
        (r"^bottleneck\.", "neck."),
    ),
    backbones=tuple(SWINS),
    candidates=_candidates,
    last_stride=None,
    feature="f_t",
    size=lambda _: (384, 128),
    mean=HALF,
    std=HALF,
)
