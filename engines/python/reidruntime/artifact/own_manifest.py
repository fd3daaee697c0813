"""The manifest that an artifact carries, or has beside it."""

from pathlib import Path

from reidruntime.artifact.manifest import Manifest, engine_manifest_path, manifest_from_json
from reidruntime.artifact.onnx_metadata import manifest_from_onnx
from reidruntime.errors import ArtifactError

ENGINE_SUFFIXES = (".engine", ".plan")


def artifact_manifest(path: Path) -> Manifest:
    """The manifest of an ONNX file or a TensorRT engine, without opening the artifact.

    Raises:
        ArtifactError: the manifest or the artifact is missing, or the manifest is not valid.
    """
    if path.suffix not in ENGINE_SUFFIXES:
        manifest = manifest_from_onnx(path)
        if manifest is None:
            raise ArtifactError(
                f"{path}: the file carries no manifest, so its image size, mean, std, channel order and layout "
                "are not known. Pass them as --size HxW --mean R,G,B --std R,G,B --channel-order RGB|BGR "
                "--layout NCHW|NHWC, or in Python open_session(path, manifest=manifest_for_foreign_onnx(path, ...)); "
                "or make the file from its checkpoint: reidexport onnx CHECKPOINT."
            )
        return manifest
    beside = engine_manifest_path(path)
    if not beside.is_file():
        raise ArtifactError(
            f"{path}: its manifest {beside.name} is not beside it. Copy both files, or build with reidexport trt."
        )
    return manifest_from_json(beside.read_bytes(), str(beside))
