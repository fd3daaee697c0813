"""Does a network answer an image alone as it does among others? Asked of files whose maker did not check it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reidruntime.artifact.manifest import Manifest
from reidruntime.errors import ArtifactError
from reidruntime.images.resize import Image8

# Relative L2 difference that rounding explains; kernels for other batch sizes add in another order.
TOLERANCE = {"fp32": 1e-3, "fp16": 3e-2, "int8": 3e-2, "bf16": 5e-2}
# Lowest and highest pixel of the images: what depends on a batch's mean or deviation must differ between them.
_PIXELS = ((0, 64), (0, 256), (160, 256))


def check_rows(
    run: Callable[[Image8], NDArray[np.float32]], manifest: Manifest, precision: str, path: Path
) -> None:
    """Run two images of noise alone and in a batch of three, and compare.

    Where the batch size is fixed, an image is alone in a batch of its copies; of one that is fixed to 1 there is
    nothing to compare.

    Args:
        run: :meth:`reidruntime.Session.run`, of an artifact with this manifest.
        manifest: the facts about the file.
        precision: what the backend computes in, a key of :data:`TOLERANCE`.
        path: the file, for messages.

    Raises:
        ArtifactError: the answers differ by more than rounding explains, are not one row for each image, or the network
            fails on one of the batches.
    """
    size = min(len(_PIXELS), manifest.batch_profile.maximum or len(_PIXELS))
    if size == 1:
        return
    images = _noise(manifest.preprocess.height_px, manifest.preprocess.width_px)[:size]
    alone = [run(images[[place]]) for place in (0, -1)]
    try:
        together = run(images)
    except (ArtifactError, ValueError) as error:
        raise ArtifactError(
            f"{path}: answers one image, but not a batch of {size}. Export it with a batch dimension that is dynamic "
            f"in every layer, or with the batch size fixed to 1. ({' '.join(str(error).split())})"
        ) from error
    shape = (size, manifest.architecture.feature_dim)
    if together.shape != shape or alone[0].shape != (1, *shape[1:]):
        raise ArtifactError(
            f"{path}: answers one image with shape {alone[0].shape}, a batch of {size} with {together.shape}; expected "
            f"{(1, *shape[1:])} and {shape}. Export the network with one row of features for each image."
        )
    difference = max(
        _relative_l2(found, expected[0]) for found, expected in zip(together[[0, -1]], alone, strict=True)
    )
    if not difference <= TOLERANCE[precision]:
        raise ArtifactError(
            f"{path}: answers an image in a batch otherwise than alone: relative L2 difference {difference:.1e}, "
            f"allowed {TOLERANCE[precision]:.0e} in {precision}. The network mixes the images of a batch, as "
            "BatchNormalization in training mode does. Call model.eval() and export it again, or with the batch size "
            "fixed to 1 if that is what it is to compute."
        )


def _noise(height_px: int, width_px: int) -> Image8:
    random = np.random.default_rng(0)
    images = [random.integers(*ends, (height_px, width_px, 3), dtype=np.uint8) for ends in _PIXELS]
    return np.stack(images)


def _relative_l2(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Over the finite values; infinite where others than these are not, or where only zeros were expected."""
    finite = np.isfinite(expected)
    if not np.array_equal(found[~finite], expected[~finite], equal_nan=True):
        return float("inf")
    a, b = found[finite].astype(np.float64), expected[finite].astype(np.float64)
    lost, norm = float(np.linalg.norm(a - b)), float(np.linalg.norm(b))
    return lost / norm if norm else 0.0 if lost == 0 else float("inf")
