"""roboflow's ``reid``, which names the network beside the weights."""

from dataclasses import replace

from reidexport.checkpoint.family import Family
from reidexport.checkpoint.projects.torchreid import TORCHREID
from reidexport.models.baseline import OSNETS, BaselineArchitecture, is_backbone
from reidexport.models.timm_backbone import PREFIX

NAME = "roboflow reid"
_OSNETS = tuple(name for name in OSNETS if name.startswith("osnet_x"))
_SBS = "fastreid_sbs_resnest50"
_TIMM = "timm:"
# Its loader drops these as well.
_LOST = ((r"^((module|model|encoder)\.)+", ""), (r"^classifier.*", ""))


def reid_family(architecture: str) -> Family | None:
    """The conventions of one of its networks, which is the only one in ``backbones``; None where it is not known."""
    if architecture in _OSNETS:
        return replace(
            TORCHREID,
            name=NAME,
            signature=(),
            key_map=(*_LOST, *TORCHREID.key_map),
            backbones=(architecture,),
            candidates=None,
            lookalikes="",
        )
    if architecture == _SBS:
        # fast-reid's SBS with ResNeSt-50 under names of its own.
        names = ((r"^module\.", ""), (r"^heads\.weight$", ""), (r"^bottleneck\.", "neck."))
        return Family(name=NAME, signature=(), key_map=names, backbones=("resnest50",))
    timm_name = PREFIX + architecture.removeprefix(_TIMM)
    if architecture.startswith(_TIMM) and is_backbone(timm_name):
        network = BaselineArchitecture(timm_name, last_stride=None, pooling="none")
        return Family(
            name=NAME,
            signature=(),
            key_map=(*_LOST, (r"^(?=.)", "backbone.trunk.")),
            backbones=(timm_name,),
            candidates=lambda _: (network,),
            feature="f_t",
        )
    return None
