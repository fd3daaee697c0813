"""Open an exported re-identification artifact and turn person images into embeddings.

>>> with open_session("model.onnx") as session:
...     embeddings = session.embed(images)  # uint8 HWC arrays or paths -> (N, D) float32
"""

from reidruntime.artifact.foreign import manifest_for_foreign_onnx
from reidruntime.artifact.manifest import ImageInput, Manifest
from reidruntime.artifact.onnx_metadata import manifest_from_onnx
from reidruntime.errors import (
    ArtifactError,
    GpuError,
    ImageError,
    InputError,
    NotInstalledError,
    ReidExportError,
)
from reidruntime.images.preprocess import EncodedImage
from reidruntime.session import Session, SessionOptions, open_session

__all__ = [
    "ArtifactError",
    "EncodedImage",
    "GpuError",
    "ImageError",
    "ImageInput",
    "InputError",
    "Manifest",
    "NotInstalledError",
    "ReidExportError",
    "Session",
    "SessionOptions",
    "manifest_for_foreign_onnx",
    "manifest_from_onnx",
    "open_session",
]
