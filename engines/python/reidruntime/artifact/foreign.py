"""A manifest for an ONNX file that another program wrote."""

from pathlib import Path

import numpy as np

from reidruntime.artifact.checks import fits
from reidruntime.artifact.manifest import (
    Architecture,
    BatchProfile,
    Feature,
    ImageInput,
    Manifest,
    Metric,
    Preprocess,
    Producer,
    Source,
    TensorSpec,
    file_sha256,
)
from reidruntime.artifact.onnx_metadata import OnnxFile, OnnxTensor, Shape, read_onnx, shape_text
from reidruntime.backends import Network, open_backend
from reidruntime.errors import ArtifactError

_FLOATS = ("float32", "float16")


def manifest_for_foreign_onnx(
    path: str | Path,
    images: ImageInput,
    *,
    feature: Feature = "f_i",
    normalized: bool = False,
    metric: Metric = "cosine",
) -> Manifest:
    """State the facts that a file without a manifest does not carry; names, shapes and precision are read from it.

    Args:
        path: the ONNX file: one image input, and an output of shape (N, D) or (N, D, 1, 1); of several such outputs
            the first is used.
        images: the images that it takes.
        feature: what the network emits, where that is known.
        normalized: whether its rows have unit norm.
        metric: how to compare its rows.

    Returns:
        A manifest of family ``"foreign"``; what is not known of the architecture is called unknown.

    Raises:
        ArtifactError: the file has no such input or output, or disagrees with the size or the layout.
        NotInstalledError: the file does not state its output's shape, and no backend is installed to find out.
    """
    path = Path(path)
    file = read_onnx(path)
    if len(file.inputs) != 1:
        raise ArtifactError(f"{path}: expected one image input, found {_listed(file.inputs)}.")
    tensor, (height_px, width_px) = file.inputs[0], (images.height_px, images.width_px)
    pixels = (height_px, width_px, 3) if images.layout == "NHWC" else (3, height_px, width_px)
    batch = _batch(tensor, pixels, path)
    taken = TensorSpec(name=tensor.name, dtype=tensor.dtype, shape=(batch, *pixels))
    output, feature_dim = _feature_output(taken, file, path)
    return Manifest(
        producer=Producer(name=file.producer[0] or "unknown", version=file.producer[1] or "unknown"),
        source=Source(name=path.name, sha256=file_sha256(path)),
        architecture=Architecture(
            backbone="unknown",
            family="foreign",
            stem_relu=None,
            pooling="unknown",
            neck="unknown",
            feature_dim=feature_dim,
        ),
        input=taken,
        output=output,
        preprocess=Preprocess(**images.model_dump(), in_graph=tensor.dtype == "uint8"),
        feature=feature,
        normalized=normalized,
        flip=False,
        metric=metric,
        precision=file.precision,
        layer_precisions={},
        batch_profile=BatchProfile(minimum=batch, maximum=batch) if batch else BatchProfile(),
    )


def _batch(image: OnnxTensor, pixels: tuple[int, int, int], path: Path) -> int | None:
    """The batch size that is fixed in the file, or None; size, layout and dtype are checked on the way."""
    shape = image.shape
    if shape is not None and not fits(pixels, shape[1:]):
        raise ArtifactError(
            f"{path}: input {image.name!r} has shape {shape_text(shape)}; the given size and layout need "
            f"{shape_text((None, *pixels))}. Correct --size (HxW) or --layout."
        )
    if image.dtype not in (*_FLOATS, "uint8"):
        raise ArtifactError(
            f"{path}: input {image.name!r} is {image.dtype}; expected float32, float16 or uint8."
        )
    return shape[0] if shape else None


def _feature_output(image: TensorSpec, file: OnnxFile, path: Path) -> tuple[TensorSpec, int]:
    """The first output that can be a batch of embeddings, and how many dimensions those have."""
    for output in file.outputs:
        if output.dtype not in _FLOATS:
            continue
        stated = output.shape
        shape = stated if stated and None not in stated[1:] else _shape_by_running(image, output, file, path)
        row = tuple(size for size in shape[1:] if size)
        if len(row) == 1 or (len(row) == 3 and row[1:] == (1, 1)):
            spec = TensorSpec(name=output.name, dtype=output.dtype, shape=(image.shape[0], *row))
            return spec, row[0]
    raise ArtifactError(
        f"{path}: no output is a batch of embeddings, float of shape (N, D) or (N, D, 1, 1); "
        f"found {_listed(file.outputs)}. Export the network without its classifier, with a pooled output."
    )


def _shape_by_running(image: TensorSpec, output: OnnxTensor, file: OnnxFile, path: Path) -> Shape:
    unknown = TensorSpec(name=output.name, dtype=output.dtype, shape=(image.shape[0],))
    network = Network(path, image, unknown, file.precision)
    _, backend = open_backend(network, "auto", "cpu", threads=1)
    return backend.run(np.zeros([size or 1 for size in image.shape], image.dtype)).shape


def _listed(tensors: tuple[OnnxTensor, ...]) -> str:
    return ", ".join(f"{t.name!r} {t.dtype} {shape_text(t.shape)}" for t in tensors) or "none"
