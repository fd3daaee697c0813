"""How fast is an exported transformer beside timm's own network, and beside ONNX Runtime on timm's own export?

pytest benchmarks/bench_transformers.py --results DIR
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from reidruntime import SessionOptions, open_session
from torch import Tensor, nn

from benchmarks.harness.comparison import Compare, ComparisonOptions
from benchmarks.harness.operations import operations_per_image, peak
from benchmarks.harness.subjects import device
from benchmarks.harness.turns import calls_in_a_row, rounded
from benchmarks.peers.peers import num_threads, onnxruntime_session
from reidexport import graph_from_checkpoint, load_checkpoint, onnx_from_graph
from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.evaluation.timing import noise
from reidexport.metrics.agreement import agreement

_TURN_S = 1.0
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Transformer:
    """A network of timm, and the checkpoint of a project that has the same one.

    Attributes:
        name: of timm.
        size: (height, width) in pixels.
        checkpoint: from timm's tensors to those of the project's checkpoint.
        is_same: whether the two answer the same; else they have the same layers on maps of nearly the same sizes.
    """

    name: str
    size: tuple[int, int]
    checkpoint: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    is_same: bool

    def build(self) -> Any:
        """Timm's network, with weights drawn from a seed."""
        torch.manual_seed(0)
        return timm.create_model(self.name, img_size=self.size, num_classes=0).eval()


def transreid(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A TransReID's checkpoint: its f_t is timm's feature."""
    dim = weights["norm.weight"].shape[0]
    neck = nn.BatchNorm1d(dim).state_dict()
    renamed = {f"base.{key}": tensor for key, tensor in weights.items()}
    return renamed | {f"bottleneck.{key}": tensor for key, tensor in neck.items()}


def solider(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A SOLIDER-REID's checkpoint without the semantic embedding.

    Where the sides of maps are no multiples of 7, timm pads and shifts windows otherwise; elsewhere they are the same.
    """
    names = (
        *((r"^patch_embed\.proj\.", "patch_embed.projection."), (r"^norm\.", "norm3.")),
        *(
            (r"\.attn\.", ".attn.w_msa."),
            (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
            (r"\.mlp\.fc2\.", ".ffn.layers.1."),
        ),
        # It merges patches at the end of a stage, timm at the start of the next.
        *((rf"^layers\.{stage}\.downsample\.", f"stages.{stage - 1}.downsample.") for stage in (1, 2, 3)),
        (r"^layers\.", "stages."),
    )
    renamed = {}
    for key, tensor in weights.items():
        name = key
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        if (
            ".downsample." in name
        ):  # timm's patches are in the order (across, down, channel), its are (channel, down, across)
            columns = tensor.reshape(*tensor.shape[:-1], 2, 2, -1)
            tensor = columns.movedim(-1, -3).transpose(-1, -2).flatten(-3).contiguous()
        renamed[f"base.{name}"] = tensor
    neck = nn.BatchNorm1d(weights["norm.weight"].shape[0]).state_dict()
    return renamed | {f"bottleneck.{key}": tensor for key, tensor in neck.items()}


TRANSFORMERS = {
    "ViT-B/16": Transformer("vit_base_patch16_224", (256, 128), transreid, is_same=True),
    "Swin-T": Transformer("swin_tiny_patch4_window7_224", (448, 224), solider, is_same=False),
}
_MEAN = _STD = 0.5


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformer(compare: Compare, name: str, batch_size: int, quick: bool, tmp_path: Path) -> None:
    """Pixels in memory to features: ours from raw bytes, the peers from images that are normalized already."""
    if device() != "cpu":
        pytest.skip("measured on CPUs; on a GPU bench_throughput.py measures any artifact")
    network = TRANSFORMERS[name]
    model = network.build()
    torch.save(network.checkpoint(model.state_dict()), tmp_path / "model.pth")
    ours = tmp_path / "model.onnx"
    checkpoint = load_checkpoint(tmp_path / "model.pth", CheckpointChoices(size=network.size))
    onnx_from_graph(graph_from_checkpoint(checkpoint), ours)
    torch.set_num_threads(num_threads())
    with open_session(ours, SessionOptions(threads=num_threads())) as session:
        pixels = noise(session, batch_size)
        images = ((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - _MEAN) / _STD).contiguous()
        peers = {
            "timm eager": partial(eager, model, images),
            "onnxruntime on timm's export": exported_by_timm(model, images, tmp_path / "timm.onnx"),
        }
        expected = session.run(pixels)
        for answer in peers.values() if network.is_same else ():
            assert agreement(answer(), expected).relative_l2.max() < _TOLERANCE
        row = compare(
            f"{name} of {network.size[0]}x{network.size[1]} px, batch {batch_size}",
            "pixels in memory to float32 features, FP32, same threads, all warm: ours from uint8, the others from "
            f"normalized float32; each turn is calls in a row for {_TURN_S} s",
            lambda: session.run(pixels),
            peers,
            ComparisonOptions(measure=partial(calls_in_a_row, at_least_s=0.1 if quick else _TURN_S)),
        )
        row |= {"backend": session.backend, "precision": session.precision, "batch_size": batch_size}
        images_per_s, limit = batch_size / row["seconds"]["reidexport"]["median"], peak(session.precision)
        operations = operations_per_image(ours)
        row |= {
            "images_per_s": rounded(images_per_s),
            "operations_per_image": operations,
            "limit_images_per_s": rounded(1e9 * limit.gop_per_s / operations),
        }
        if isinstance(row["ratios"], dict):
            row["share_of_limit"] = rounded(images_per_s * operations / (1e9 * limit.gop_per_s))


def eager(model: nn.Module, images: Tensor) -> np.ndarray:
    """Timm's network in torch."""
    with torch.inference_mode():
        features: Tensor = model(images)
        return features.numpy()


def exported_by_timm(model: nn.Module, images: Tensor, path: Path) -> Callable[[], np.ndarray]:
    """ONNX Runtime on what ``torch.onnx.export`` makes of timm's network."""
    torch.onnx.export(
        model,
        (torch.cat((images, images))[:2],),
        path,
        dynamo=True,
        external_data=False,
        verbose=False,
        dynamic_shapes=({0: "batch"},),
    )
    session = onnxruntime_session(path, "cpu", {})
    feeds = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, feeds)[0]
