"""The manifest of an artifact: what a graph takes and answers, for every runtime to check."""

from typing import Literal

from reidruntime.artifact.manifest import (
    Architecture,
    BatchProfile,
    Manifest,
    Parity,
    Precision,
    Producer,
    Source,
    TensorSpec,
)

from reidexport.export.graph import InferenceGraph
from reidexport.version import __version__


def manifest_of_graph(
    graph: InferenceGraph,
    *,
    batch: int | Literal["dynamic"] = "dynamic",
    precision: Precision = "fp32",
    layer_precisions: dict[str, int] | None = None,
    parity: Parity | None = None,
) -> Manifest:
    """The manifest of an artifact that answers as this graph does."""
    checkpoint, options, pixels = graph.checkpoint, graph.options, graph.preprocess
    size = None if batch == "dynamic" else batch
    height_width = (pixels.height_px, pixels.width_px)
    image_shape = (*height_width, 3) if options.input == "uint8" else (3, *height_width)
    return Manifest(
        producer=Producer(name="reidexport", version=__version__),
        source=Source(name=checkpoint.name, sha256=checkpoint.sha256),
        architecture=Architecture(
            backbone=checkpoint.architecture.backbone,
            family=checkpoint.family,
            last_stride=checkpoint.architecture.last_stride,
            stem_relu=checkpoint.architecture.stem_relu,
            pooling=checkpoint.architecture.pooling,
            neck=checkpoint.architecture.neck,
            feature_dim=graph.feature_dim,
        ),
        input=TensorSpec(name="images", dtype=options.input, shape=(size, *image_shape)),
        output=TensorSpec(name=str(options.feature), dtype="float32", shape=(size, graph.feature_dim)),
        preprocess=pixels,
        feature=options.feature or "f_i",
        normalized=options.normalize,
        flip=options.flip,
        metric="cosine",
        precision=precision,
        layer_precisions=layer_precisions or {},
        batch_profile=BatchProfile(minimum=size or 1, optimum=size, maximum=size),
        parity=parity,
    )
