"""Every BatchNorm and the pixel scaling, folded into the layers beside them, in float64 and stored in float32."""

import copy
from itertools import chain
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from timm.models.byobnet import MobileOneBlock, RepVggBlock
from torch import Tensor, fx, nn
from torch.nn import functional

from reidexport.errors import InputError
from reidexport.models.baseline import BatchNorm
from reidexport.models.resnet import IBN


class ScaleShift(nn.Module):
    """BNNeck folded: ``f_i = scale · f_t + shift``, scale = γ/√(σ²+ε), shift = β − μ·scale (paper, 3.5).

    Or any other BatchNorm without a layer before it that could take it.
    """

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__()
        shape = (-1, 1, 1) if isinstance(norm, nn.BatchNorm2d) else (-1,)
        scale, shift = (values.float().reshape(shape) for values in _scale_shift(norm))
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.scale: Tensor
        self.shift: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) or (B, D, H, W) → the same shape."""
        return x * self.scale + self.shift


class _Tracer(fx.Tracer):
    """Sees as one layer what holds a norm, and what holds none to fold.

    That is an IBN, whose batch norm reaches half of the channels, timm's norms, the blocks of transformers, and what
    holds no weights, which may so decide by the shapes of its maps what to compute.
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        kinds = [type(part) for part in m.modules()]
        is_block = nn.LayerNorm in kinds and not any(issubclass(kind, BatchNorm) for kind in kinds)
        holds_norm = isinstance(m, IBN | BatchNormAct2d)
        is_weightless = next(chain(m.parameters(), m.buffers()), None) is None
        return is_block or holds_norm or is_weightless or super().is_leaf_module(m, module_qualified_name)


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Fold every BatchNorm into the convolution or linear layer before it, in float64.

    One that follows another layer, as DenseNet's do, becomes a scale and a shift.

    Args:
        module: in eval mode; left as it is.

    Returns:
        A copy: traced where there is something to fold.

    Raises:
        InputError: an IBN follows something that it cannot be folded into, or the network decides by the values or
            shapes of its maps what to compute.
    """
    module = copy.deepcopy(module)
    if not any(isinstance(part, BatchNorm) for part in module.modules()):
        return module
    _merge_branches(module)
    try:
        traced = fx.GraphModule(module, _Tracer().trace(module))
    except fx.proxy.TraceError as error:
        raise InputError(
            f"this {type(module).__name__} cannot be exported: torch.fx cannot trace it ({error})"
        ) from error
    layers = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        norm = layers.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | IBN):
            continue
        before = node.args[0]
        layer = layers.get(str(before.target)) if before.op == "call_module" else None
        if not isinstance(layer, nn.Conv2d | nn.Linear) or len(before.users) > 1:
            if isinstance(norm, IBN):
                raise InputError(f"the IBN {node.target} follows {before.target}: nothing to fold it into")
            activation = [norm.act] if isinstance(norm, BatchNormAct2d) else []
            traced.set_submodule(str(node.target), nn.Sequential(ScaleShift(norm), *activation))
        elif isinstance(norm, IBN) and isinstance(norm.BN, nn.BatchNorm2d):
            scale, shift = _scale_shift(norm.BN)
            untouched = (norm.num_instance, 0)  # channels before the others
            _scale_outputs(
                layer, functional.pad(scale, untouched, value=1.0), functional.pad(shift, untouched)
            )
            norm.BN = nn.Identity()
        elif isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            _scale_outputs(layer, *_scale_shift(norm))
            if isinstance(norm, BatchNormAct2d):
                # timm's norm has the activation inside.
                traced.set_submodule(str(node.target), norm.act)
            else:
                node.replace_all_uses_with(before)
                traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _merge_branches(module: nn.Module) -> None:
    """Make one convolution of the branches of every block of timm's that is trained in several, such as RepVGG's."""
    blocks: list[Any] = [part for part in module.modules() if isinstance(part, RepVggBlock | MobileOneBlock)]
    for block in blocks:
        with torch.no_grad():
            block.double().reparameterize()
        block.float()


def _scale_shift(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A BatchNorm in eval mode as ``scale · x + shift``, float64."""
    state = {key: value.double() for key, value in norm.state_dict().items()}
    scale = state["weight"] / torch.sqrt(state["running_var"] + norm.eps)
    return scale, state["bias"] - state["running_mean"] * scale


def _scale_outputs(layer: nn.Conv2d | nn.Linear, scale: Tensor, shift: Tensor) -> None:
    """Make a layer compute ``scale · layer(x) + shift``, per output channel."""
    weight = layer.weight.detach().double()
    bias = 0.0 if layer.bias is None else layer.bias.detach().double()
    layer.weight = nn.Parameter(
        (weight * scale.reshape(-1, *[1] * (weight.ndim - 1))).float(), requires_grad=False
    )
    layer.bias = nn.Parameter((bias * scale + shift).float(), requires_grad=False)


def divide_first_convolution(backbone: nn.Module, std: tuple[float, float, float]) -> None:
    """Let conv1 take pixels of 0 to 255 (less the mean) instead of normalized ones."""
    first = next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    divisor = torch.tensor(std, dtype=torch.float64).reshape(1, 3, 1, 1) * 255
    first.weight = nn.Parameter((first.weight.detach().double() / divisor).float(), requires_grad=False)


def fold_neck(neck: nn.Module) -> nn.Module:
    """BNNeck as a :class:`ScaleShift`; a neck with a linear layer as that layer."""
    if isinstance(neck, nn.BatchNorm1d):
        return ScaleShift(neck)
    return fold_batch_norms(neck)
