"""Precision is a property of the graph, never a flag of a builder."""

import copy

from torch import Tensor, fx, nn

from reidexport.graph import InferenceGraph


class HalfBackbone(nn.Module):
    """A backbone whose convolutions and linear layers compute in FP16, between float32 neighbours."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        """Float32 in, float32 out."""
        features: Tensor = self.backbone(x.half())
        return features.float()


class InFloat32(nn.Module):
    """A layer that sums over a whole map, kept in float32 between half neighbours."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Half in, half out."""
        y: Tensor = self.layer(x.float())
        return y.half()


def fp16_graph(graph: InferenceGraph) -> InferenceGraph:
    """The same graph with a half backbone; whatever sums over a map, the neck, L2 and the output stay float32.

    The input is cast after the mean is subtracted: pixels of ±128 are exact enough in half, and the sum of squares
    of 2048 features, which would overflow it, is never taken there.
    """
    half = copy.deepcopy(graph)
    backbone = half.backbone.half()
    for name, layer in list(backbone.named_modules()):
        if isinstance(layer, nn.InstanceNorm2d):
            parent, _, attribute = name.rpartition(".")
            setattr(backbone.get_submodule(parent), attribute, InFloat32(layer.float()))
    if isinstance(backbone, fx.GraphModule):
        _average_in_float32(backbone)
    half.backbone = HalfBackbone(backbone)
    return half


def _average_in_float32(backbone: fx.GraphModule) -> None:
    """Take the means of squeeze-and-excitation, gates and attention in float32: a map has thousands of pixels."""
    for node in list(backbone.graph.find_nodes(op="call_method", target="mean")):
        with backbone.graph.inserting_before(node):
            widened = backbone.graph.call_method("float", (node.args[0],))
        node.args = (widened, *node.args[1:])
        with backbone.graph.inserting_after(node):
            narrowed = backbone.graph.call_method("half", (node,))
        node.replace_all_uses_with(narrowed, delete_user_cb=lambda user, own=narrowed: user is not own)
    backbone.recompile()
