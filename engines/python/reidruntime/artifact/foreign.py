"""A manifest for an ONNX file that another program wrote."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from reidruntime.artifact.checks import check_external_data, check_inference_mode, fits
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
from reidruntime.artifact.onnx_metadata import OnnxFile, OnnxTensor, read_onnx, shape_text
from reidruntime.backends import Network, open_backend
from reidruntime.errors import ArtifactError

_FLOATS = ("float32", "float16")
_FLAT, _POOLED = 2, 4  # how many dimensions a batch of embeddings has


def manifest_for_foreign_onnx(
    path: str | Path,
    images: ImageInput,
    *,
    feature: Feature = "f_i",
    normalized: bool = False,
    metric: Metric = "cosine",
    output_name: str | None = None,
) -> Manifest:
    """State the facts that a file without a manifest does not carry; names, shapes and precision are read from it.

    That the file answers an image alone as it does in a batch is checked when it is opened.

    Args:
        path: the ONNX file: one image input, and an output of shape (N, D) or (N, D, 1, 1), float32 or float16.
        images: the images that it takes.
        feature: what the network emits, where that is known.
        normalized: whether its rows have unit norm.
        metric: how to compare its rows.
        output_name: which output is the embedding; must be given where several can be: a classifier's logits have its
            form, too.

    Returns:
        A manifest of family ``"foreign"``; what is not known of the architecture is called unknown.

    Raises:
        ArtifactError: the file has no such input or output, or several such outputs and none is chosen; disagrees with
            the size or the layout; was exported in training mode; or the file that holds its weights is missing.
        NotInstalledError: the file does not state its output's shape, and no backend is installed to find out.
    """
    path = Path(path)
    file = read_onnx(path)
    check_external_data(file, path)
    check_inference_mode(file, path)
    if len(file.inputs) != 1:
        raise ArtifactError(f"{path}: expected one image input, found {_listed(file.inputs)}.")
    tensor, (height_px, width_px) = file.inputs[0], (images.height_px, images.width_px)
    pixels = (height_px, width_px, 3) if images.layout == "NHWC" else (3, height_px, width_px)
    batch = _batch(tensor, pixels, path)
    taken = TensorSpec(name=tensor.name, dtype=tensor.dtype, shape=(batch, *pixels))
    output, feature_dim = _feature_output(taken, file, path, output_name)
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


def _feature_output(
    image: TensorSpec, file: OnnxFile, path: Path, chosen: str | None
) -> tuple[TensorSpec, int]:
    """The output that is a batch of embeddings, and how many dimensions those have."""
    outputs = [output for output in file.outputs if chosen in (None, output.name)]
    if not outputs:
        raise ArtifactError(
            f"{path}: no output is called {chosen!r}; found {_listed(file.outputs)}. Correct --output-name "
            "(in Python output_name)."
        )
    shaped = [_with_shape(output, image, file, path) for output in outputs]
    found = [output for output in shaped if _is_embeddings(output)]
    if not found:
        raise ArtifactError(
            f"{path}: no output is a batch of embeddings, float of shape (N, D) or (N, D, 1, 1); "
            f"found {_listed(tuple(shaped))}. Export the network without its classifier, with a pooled output."
        )
    if len(found) > 1:
        raise ArtifactError(
            f"{path}: {len(found)} outputs can be the embedding: {_listed(tuple(found))}. Name the one that is with "
            "--output-name (in Python output_name); the logits of a classifier are none."
        )
    row = tuple(size for size in (found[0].shape or ())[1:] if size)
    return TensorSpec(name=found[0].name, dtype=found[0].dtype, shape=(image.shape[0], *row)), row[0]


def _is_embeddings(output: OnnxTensor) -> bool:
    """Whether rows have one dimension, or two more of size 1, all of them known."""
    if output.dtype not in _FLOATS or output.shape is None or None in output.shape[1:]:
        return False
    return len(output.shape) == _FLAT or (len(output.shape) == _POOLED and output.shape[2:] == (1, 1))


def _with_shape(output: OnnxTensor, image: TensorSpec, file: OnnxFile, path: Path) -> OnnxTensor:
    """An output with its shape, for which the network is run where the file does not state it."""
    stated = output.shape
    is_possible = output.dtype in _FLOATS and (stated is None or len(stated) in (_FLAT, _POOLED))
    if not is_possible or (stated and None not in stated[1:]):
        return output
    unknown = TensorSpec(name=output.name, dtype=output.dtype, shape=(image.shape[0],))
    network = Network(path, image, unknown, file.precision)
    _, backend = open_backend(network, "auto", "cpu", threads=1)
    row = backend.run(np.zeros([size or 1 for size in image.shape], image.dtype)).shape[1:]
    return replace(output, shape=(image.shape[0], *row))


def _listed(tensors: tuple[OnnxTensor, ...]) -> str:
    return ", ".join(f"{t.name!r} {t.dtype} {shape_text(t.shape)}" for t in tensors) or "none"
