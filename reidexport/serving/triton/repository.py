"""Model repositories: a folder for each model, with its configuration, its file and what it is warmed up with.

That of a Triton server elsewhere has the models of ONNX files and TensorRT engines.
"""

import io
import shutil
import struct
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from google.protobuf import text_format
from PIL import Image
from reidruntime import Manifest
from reidruntime.artifact.camera_profile import (
    UnknownCamera,
    manifest_with_profile,
    read_camera_profile,
)
from reidruntime.artifact.checks import check_manifest
from reidruntime.artifact.manifest import engine_manifest_path, file_sha256
from reidruntime.artifact.onnx_metadata import read_onnx
from reidruntime.images.preprocess import decode_bytes, image_pixels, network_input
from reidruntime.triton import PROFILE_FILE
from tritonclient.grpc import model_config_pb2 as schema

from reidexport.data.synthetic import draw_people
from reidexport.errors import ArtifactError, InputError
from reidexport.evaluation.opening import exported_manifest, kind_of
from reidexport.files import folder_when_whole
from reidexport.serving.triton.config import (
    Batching,
    ModelConfig,
    Place,
    decoder,
    file_network,
    jpeg_ensemble,
    model_name,
    standardizer,
)

VERSION = "1"


class Written(NamedTuple):
    """The models of an artifact that clients ask, by name.

    Attributes:
        network: takes the artifact's own input.
        jpeg: takes image files, and does all the others do.
        cameras: applies a camera profile to what the network answers; None where none changes features.
    """

    network: str
    jpeg: str
    cameras: str | None


def write_repository(
    artifacts: Sequence[Path],
    repository: Path,
    *,
    device: Place = "cpu",
    instances: int = 1,
    batching: Batching | None = None,
    image_paths: Sequence[str] = (),
    cameras: Path | None = None,
    unknown_camera: UnknownCamera = "refuse",
) -> list[Written]:
    """Write the models of every artifact; the folder appears whole or not at all.

    Args:
        artifacts: ONNX files with a manifest, and TensorRT engines with theirs beside them.
        repository: the folder to write, which does not exist yet or is empty.
        device: what runs ONNX files. Engines run on GPUs.
        instances: how many copies of a network answer at a time, on every GPU or on the CPU.
        batching: how Triton gathers requests.
        image_paths: images to warm up with; none: people are drawn.
        cameras: a camera profile of the artifact, which is then the only one; it is copied into the folder.
        unknown_camera: what to do with images of cameras that the profile does not have.

    Returns:
        The models of each artifact.

    Raises:
        ArtifactError: an artifact cannot be read, has no manifest, or is of a kind that Triton does not load; or the
            camera profile is not the artifact's, or has a network for each camera.
        InputError: two artifacts have one name, an artifact does not take such batches, or the folder exists; or there
            is a camera profile and more than one artifact.
        ImageError: an image to warm up with cannot be read.
    """
    if cameras is not None and len(artifacts) > 1:
        raise InputError(
            f"{cameras}: a camera profile is of one artifact, got {len(artifacts)}. Write a repository for each."
        )
    images = warm_up_images(image_paths)
    written: list[Written] = []
    if repository.exists() and not (repository.is_dir() and not any(repository.iterdir())):
        raise InputError(f"{repository}: exists already. Choose another folder, or remove it first.")

    def refusal(error: OSError) -> InputError:
        return InputError(
            f"{repository}: cannot write there ({error.strerror}). Make the folder above it, or choose another path."
        )

    with folder_when_whole(repository, refusal) as folder:
        for artifact in artifacts:
            manifest = _manifest(artifact)
            name = f"{model_name(artifact)}_{'tensorrt' if manifest.engine else 'onnx'}"
            if any(name == each.network for each in written):
                raise InputError(f"{artifact}: there is another artifact named {name}. Rename one of them.")
            place: Place = "gpu" if manifest.engine else device
            network = file_network(name, manifest, batching or Batching(), place=place, instances=instances)
            behind = _standardizer(network, manifest, artifact, cameras, unknown_camera)
            written.append(write_models(folder, network, manifest, images, artifact, standardizing=behind))
            if cameras is not None and behind is not None:
                shutil.copyfile(cameras, folder / behind.name / VERSION / PROFILE_FILE)
    return written


def warm_up_images(paths: Sequence[str] = ()) -> list[bytes]:
    """The bytes of image files; none given: of drawn people."""
    if paths:
        return [Path(path).read_bytes() for path in paths]
    files = []
    for person in draw_people(4):
        stream = io.BytesIO()
        Image.fromarray(person).save(stream, "JPEG", quality=95)
        files.append(stream.getvalue())
    return files


def write_models(
    folder: Path,
    network: ModelConfig,
    manifest: Manifest,
    images: Sequence[bytes],
    artifact: Path | None,
    *,
    camids: Sequence[int] = (),
    standardizing: ModelConfig | None = None,
) -> Written:
    """Write a network, what decodes for it, and the ensemble of both, into ``folder``.

    Args:
        folder: where to write.
        network: its configuration.
        manifest: of the artifact.
        images: bytes of image files, to warm up with.
        artifact: is copied to where Triton's backend looks for it; None for the Python backend.
        camids: of the cameras to warm up a network with that takes them.
        standardizing: the step behind the network, if there is one.

    Raises:
        ImageError: an image cannot be decoded.
    """
    decoding = decoder(f"{network.name}_decode", manifest, network)
    behind = [standardizing] if standardizing else []
    ensemble = jpeg_ensemble(f"{network.name}_jpeg", [decoding, network, *behind])

    # An element of a tensor of strings, in Triton's protocol: length, then bytes.
    _warm_up(folder, decoding, [struct.pack("<I", len(data)) + data for data in images])
    decoded = [decode_bytes(data, f"warm-up image {index}") for index, data in enumerate(images)]
    pixels = np.stack([image_pixels(image, "", manifest.preprocess) for image in decoded])
    ready = pixels if artifact is None else network_input(pixels, manifest)
    _warm_up(
        folder, network, [row.tobytes() for row in ready], [struct.pack("<i", camid) for camid in camids]
    )

    for config, model in (
        (ensemble, None),
        (decoding, "decode"),
        (network, None if artifact else "network"),
        *((last, "standardize") for last in behind),
    ):
        version = folder / config.name / VERSION
        version.mkdir(parents=True)  # an ensemble's stays empty, but Triton looks for it
        (version.parent / "config.pbtxt").write_text(text_format.MessageToString(config))
        if model:  # Triton wants a file, which imports the class from the installed runtime
            line = f"from reidruntime.triton.{model} import TritonPythonModel  # noqa: F401\n"
            (version / "model.py").write_text(line)
    if artifact:
        file = "model.onnx" if artifact.suffix == ".onnx" else "model.plan"
        shutil.copyfile(artifact, folder / network.name / VERSION / file)
    return Written(network.name, ensemble.name, standardizing.name if standardizing else None)


def _standardizer(
    network: ModelConfig,
    manifest: Manifest,
    artifact: Path,
    cameras: Path | None,
    unknown_camera: UnknownCamera,
) -> ModelConfig | None:
    """What applies a camera profile behind the network; None where none changes features.

    Raises:
        ArtifactError: the profile is not the artifact's, or has a network for each camera.
    """
    if cameras is None:
        return None
    profile = read_camera_profile(cameras, artifact, manifest)
    if profile.has_networks:
        raise ArtifactError(
            f"{cameras}: the profile has a network for each camera, and Triton's own backends cannot choose among "
            "them. Adapt without --per-camera, or use reidexport serve."
        )
    if not profile.changes_features:
        return None
    return standardizer(
        f"{network.name}_cameras",
        manifest_with_profile(manifest, profile),
        network,
        unknown_camera,
        takes_camids=bool(profile.cameras),
    )


def _warm_up(repository: Path, config: ModelConfig, *rows: Sequence[bytes]) -> None:
    """Add a sample to ``config`` for every batch that is likely, and write the images that they are made of.

    Likely are one image, the sizes that the model prefers, and the largest. Triton makes a batch of ``batch_size``
    requests that all hold the same image; one without ``max_batch_size`` is a request with a batch of its own.

    Args:
        repository: where to write.
        config: of the model.
        rows: for each input of the model, in its order, what it may hold for an image; what is beyond is left.
    """
    folder = repository / config.name / "warmup"  # where Triton looks for the files
    folder.mkdir(parents=True)
    endless = [cycle(of_input) for of_input in rows]
    per_request = 1 if config.max_batch_size else config.input[0].dims[0]
    for size in sorted({1, *config.dynamic_batching.preferred_batch_size, config.max_batch_size or 1}):
        sample = config.model_warmup.add(name=f"batch {size}", batch_size=size)
        for place, (fed, values) in enumerate(zip(config.input, endless, strict=False)):
            file = f"batch{size}_{place}.bin"
            (folder / file).write_bytes(b"".join(islice(values, per_request)))
            sample.inputs[fed.name].CopyFrom(
                schema.ModelWarmup.Input(data_type=fed.data_type, dims=fed.dims, input_data_file=file)
            )


def _manifest(artifact: Path) -> Manifest:
    """The manifest of an artifact that Triton can run; raises ArtifactError for any other file."""
    manifest = exported_manifest(artifact, "Export it with reidexport onnx.")
    if kind_of(artifact) == "engine":
        engine, beside = manifest.engine, engine_manifest_path(artifact)
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
        return manifest
    check_manifest(manifest, read_onnx(artifact), artifact)
    if manifest.quantization and manifest.quantization.target == "tensorrt":
        raise ArtifactError(
            f"{artifact}: INT8 in TensorRT's form. Bundle the engine that reidexport trt builds from it, or export "
            "with --target cpu."
        )
    return manifest
