"""A model repository for a Triton server elsewhere, from ONNX files and TensorRT engines."""

from collections.abc import Sequence
from pathlib import Path

from reidruntime import Manifest
from reidruntime.artifact.checks import check_manifest
from reidruntime.artifact.manifest import Engine, engine_manifest_path, file_sha256
from reidruntime.artifact.onnx_metadata import read_onnx

from reidexport.errors import ArtifactError, InputError
from reidexport.evaluation.opening import exported_manifest, kind_of
from reidexport.serving.triton.config import Batching, Place, file_network, model_name
from reidexport.serving.triton.repository import new_folder, warm_up_images, write_models


def write_repository(
    artifacts: Sequence[Path],
    repository: Path,
    *,
    device: Place = "cpu",
    instances: int = 1,
    batching: Batching | None = None,
    image_paths: Sequence[str] = (),
) -> dict[str, str]:
    """Write the models of every artifact; the folder appears whole or not at all.

    Args:
        artifacts: ONNX files with a manifest, and TensorRT engines with theirs beside them.
        repository: the folder to write, which does not exist yet or is empty.
        device: what runs ONNX files. Engines run on GPUs.
        instances: how many copies of a network answer at a time, on every GPU or on the CPU.
        batching: how Triton gathers requests.
        image_paths: images to warm up with; none: people are drawn.

    Returns:
        For each network the name of the ensemble that takes image files to it.

    Raises:
        ArtifactError: an artifact cannot be read, has no manifest, or is of a kind that Triton does not load.
        InputError: two artifacts have one name, an artifact does not take such batches, or the folder exists.
        ImageError: an image to warm up with cannot be read.
    """
    images = warm_up_images(image_paths)
    written: dict[str, str] = {}
    with new_folder(repository) as folder:
        for artifact in artifacts:
            manifest = _manifest(artifact)
            name = f"{model_name(artifact)}_{'tensorrt' if manifest.engine else 'onnx'}"
            if name in written:
                raise InputError(f"{artifact}: there is another artifact named {name}. Rename one of them.")
            place: Place = "gpu" if manifest.engine else device
            network = file_network(name, manifest, batching or Batching(), place=place, instances=instances)
            written[name] = write_models(folder, network, manifest, images, artifact)
    return written


def _manifest(artifact: Path) -> Manifest:
    """The manifest of an artifact that Triton can run; raises ArtifactError for any other file."""
    manifest = exported_manifest(artifact, "Export it with reidexport onnx.")
    if kind_of(artifact) == "engine":
        _check_engine(manifest.engine, artifact)
        return manifest
    check_manifest(manifest, read_onnx(artifact), artifact)
    if manifest.quantization and manifest.quantization.target == "tensorrt":
        raise ArtifactError(
            f"{artifact}: INT8 in TensorRT's form. Bundle the engine that reidexport trt builds from it, or export "
            "with --target cpu."
        )
    return manifest


def _check_engine(engine: Engine | None, artifact: Path) -> None:
    beside = engine_manifest_path(artifact)
    if engine is None:
        raise ArtifactError(f"{beside}: not the manifest of an engine. Build it with reidexport trt.")
    if engine.flavor != "tensorrt" or engine.weights_stripped:
        form = "without weights" if engine.weights_stripped else "for TensorRT for RTX"
        raise ArtifactError(
            f"{artifact}: an engine {form}, which Triton does not load. Build it again without --flavor rtx and "
            "--strip-weights."
        )
    if file_sha256(artifact) != engine.plan_sha256:
        raise ArtifactError(
            f"{artifact}: not the engine that {beside.name} describes. Copy both files again."
        )
