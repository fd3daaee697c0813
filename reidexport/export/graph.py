"""The inference graph: pixels in, one feature per image out.

    images ─▶ − 255·mean ─▶ backbone (÷ 255·std and every BatchNorm folded in) ─▶ pooling = f_t
           ─▶ neck (BNNeck folded) = f_i ─▶ average with the mirror image (flip) ─▶ unit norm (normalize)

Everything that is folded is folded in float64 and stored in float32; no BatchNorm is left. The mean is
subtracted before conv1 and not moved into its bias: padding comes after normalization, so that the bias would be
wrong at every border.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from reidruntime.artifact.manifest import (
    Architecture,
    BatchProfile,
    CameraEmbedding,
    Feature,
    Manifest,
    Producer,
    Source,
    TensorSpec,
)
from torch import Tensor, nn

from reidexport.checkpoint.loading import Checkpoint, model_from_checkpoint
from reidexport.errors import InputError
from reidexport.export.folding import divide_first_convolution, fold_batch_norms, fold_neck
from reidexport.models.baseline import RESNET_STEMS, f_t_dim
from reidexport.models.catalogue import LIGHTMBNS
from reidexport.models.vit import TokenOptions
from reidexport.version import __version__


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """What a graph takes and answers.

    Attributes:
        feature: f_i (behind the neck) or f_t (before it); None chooses what the checkpoint's project publishes, f_t
            where there is no neck.
        normalize: give each row unit norm.
        flip: average the features of the image and of its mirror image.
        input: "uint8" takes raw RGB pixels, NHWC; "float32" takes normalized images, NCHW.
    """

    feature: Feature | None = None
    normalize: bool = False
    flip: bool = False
    input: Literal["uint8", "float32"] = "uint8"


class InferenceGraph(nn.Module):
    """What goes into the ONNX file, as a module: ``forward(images)`` answers features of shape (B, D), float32.

    Attributes:
        checkpoint: what it was made from.
        options: as given, with ``feature`` settled.
        preprocess: the input's size, kernel and normalization; ``in_graph`` says who normalizes.
        feature_dim: D.
    """

    def __init__(self, checkpoint: Checkpoint, options: GraphOptions) -> None:
        super().__init__()
        model = model_from_checkpoint(checkpoint)
        has_neck = checkpoint.architecture.neck != "none"
        if options.feature == "f_i" and not has_neck:
            raise InputError(
                f"{checkpoint.name} has no neck, so it has no f_i: leave --feature out, or ask for f_t"
            )
        self.checkpoint = checkpoint
        published: Feature = checkpoint.feature if has_neck else "f_t"
        self.options = replace(options, feature=options.feature or published)
        with_neck, normalizes = self.options.feature == "f_i", options.input == "uint8"
        if checkpoint.origins.get("unit_parts") == "told" and not with_neck:
            raise InputError("--unit-parts is of f_i: leave it out, or leave --feature f_t out")
        self.backbone: nn.Module = fold_batch_norms(model.backbone)
        if normalizes:
            divide_first_convolution(self.backbone, checkpoint.preprocess.std)
        self.pool: nn.Module = nn.Sequential(model.pool, model.reduction)
        self.neck = nn.Sequential(fold_neck(model.neck), model.parts) if with_neck else nn.Identity()
        self.feature_dim: int = (
            checkpoint.architecture.feature_dim if with_neck else f_t_dim(checkpoint.architecture)
        )
        self.preprocess = checkpoint.preprocess.model_copy(
            update={"in_graph": normalizes, "layout": "NHWC" if normalizes else "NCHW"}
        )
        mean = torch.tensor(self.preprocess.mean, dtype=torch.float64) * 255
        self.register_buffer("mean_255", mean.float().reshape(1, 3, 1, 1))
        self.mean_255: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Images to features.

        Args:
            images: uint8 (B, height, width, 3) RGB, or float32 (B, 3, height, width) normalized.

        Returns:
            float32 (B, D).
        """
        x = images
        if self.options.input == "uint8":
            # Cast first: TensorRT takes a uint8 input into a Cast and nothing else.
            x = images.float().permute(0, 3, 1, 2) - self.mean_255
        if self.options.flip:
            x = torch.cat((x, x.flip(3)))
        features: Tensor = self.neck(self.pool(self.backbone(x)))
        if self.options.flip:
            features = features.reshape(2, -1, self.feature_dim).mean(0)
        if self.options.normalize:
            features = features / features.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)
        return features

    def example(self, batch: int) -> Tensor:
        """Random images of the graph's input type, seeded, of a given batch size."""
        generator = torch.Generator().manual_seed(batch)
        height, width = self.preprocess.height_px, self.preprocess.width_px
        if self.options.input == "uint8":
            return torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8, generator=generator)
        return torch.randn((batch, 3, height, width), generator=generator)


def graph_from_checkpoint(checkpoint: Checkpoint, options: GraphOptions | None = None) -> InferenceGraph:
    """Fold a checkpoint into its inference graph.

    Args:
        checkpoint: from :func:`reidexport.load_checkpoint`.
        options: what the graph takes and emits; default: uint8 pixels, and f_i where there is a neck.

    Raises:
        InputError: ``feature="f_i"`` is asked of a network without a neck, or it cannot take images of this size.
    """
    graph = InferenceGraph(checkpoint, options or GraphOptions()).eval()
    height, width = graph.preprocess.height_px, graph.preprocess.width_px
    try:
        with torch.inference_mode():
            graph(graph.example(1))
    except (AssertionError, RuntimeError) as error:
        raise InputError(
            f"{checkpoint.architecture.backbone} cannot take images of {height}x{width} px: {str(error).rstrip('.')}. "
            "Choose another --size."
        ) from error
    return graph


def _cameras(tokens: TokenOptions | None) -> CameraEmbedding | None:
    """Which camera embedding a transformer adds, of those that it has."""
    if tokens is None or not tokens.num_cameras:
        return None
    weight = None if tokens.camera is None else tokens.camera_weight
    return CameraEmbedding(count=tokens.num_cameras, camera=tokens.camera, weight=weight)


def _parts(checkpoint: Checkpoint) -> Literal["unit", "plain"] | None:
    """How the parts of a feature that is made of some are given."""
    if checkpoint.architecture.backbone not in LIGHTMBNS:
        return None
    return "unit" if checkpoint.architecture.unit_parts else "plain"


def manifest_of_graph(graph: InferenceGraph, static_batch: int | None = None) -> Manifest:
    """The manifest of an artifact that answers as this graph does, in FP32, at any batch size or at one."""
    checkpoint, options, pixels = graph.checkpoint, graph.options, graph.preprocess
    is_resnet = checkpoint.architecture.backbone in RESNET_STEMS
    return Manifest(
        producer=Producer(name="reidexport", version=__version__),
        source=Source(name=checkpoint.name, sha256=checkpoint.sha256, weights=checkpoint.weights_key),
        architecture=Architecture(
            backbone=checkpoint.architecture.backbone,
            family=checkpoint.family,
            last_stride=checkpoint.architecture.last_stride,
            stem_relu=checkpoint.architecture.stem_relu,
            stem_pool=checkpoint.architecture.stem_pool if is_resnet else None,
            pooling=checkpoint.architecture.pooling,
            gem_p=float(checkpoint.state_dict["pool.p"]) if "pool.p" in checkpoint.state_dict else None,
            batch_norm_eps=checkpoint.architecture.batch_norm_eps,
            semantic_weight=checkpoint.architecture.semantic_weight,
            cameras=_cameras(checkpoint.architecture.tokens),
            parts=_parts(checkpoint),
            neck=checkpoint.architecture.neck,
            feature_dim=graph.feature_dim,
        ),
        input=TensorSpec(
            name="images", dtype=options.input, shape=(static_batch, *graph.example(1).shape[1:])
        ),
        output=TensorSpec(
            name=str(options.feature), dtype="float32", shape=(static_batch, graph.feature_dim)
        ),
        preprocess=pixels,
        feature=options.feature or "f_i",
        normalized=options.normalize,
        flip=options.flip,
        metric="cosine",
        precision="fp32",
        layer_precisions={},
        batch_profile=BatchProfile(minimum=static_batch or 1, optimum=static_batch, maximum=static_batch),
        origins=checkpoint.origins,
        adaptation=checkpoint.adaptation,
    )
