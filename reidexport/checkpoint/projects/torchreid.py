"""KaiyangZhou/deep-person-reid (torchreid)."""

from reidexport.checkpoint.family import Family
from reidexport.models.baseline import OSNETS, RESNETS

_HEAD = ((r"^fc\.", "neck."), (r"^(conv\d|bn1|layer\d|pool\d)\.", r"backbone.\1."))
# Plain OSNet numbers its transition as the third block and its scales with letters; AIN does not.
OSNET_NAMES = (
    (r"^(backbone\.|)conv([23])\.2\.0\.", r"\1pool\2.0."),
    (r"\.conv2a\.", ".conv2.0.layers.0."),
    (r"\.conv2b\.", ".conv2.1.layers."),
    (r"\.conv2c\.", ".conv2.2.layers."),
    (r"\.conv2d\.", ".conv2.3.layers."),
)
TORCHREID = Family(
    name="torchreid",
    signature=(r"^(conv1\.conv|layer1\.0\.conv1)\.weight$", r"^conv1\."),
    key_map=(*_HEAD, *OSNET_NAMES),
    backbones=(*OSNETS, *RESNETS),
    last_stride=2,
    lookalikes="any network with torchvision's names, such as layumi's with a last stride of 1 (--last-stride 1)",
)
