"""Model repositories: a folder for each model, with its configuration, its file and what it is warmed up with.

That of a Triton server elsewhere has the models of ONNX files and TensorRT engines.
"""

import io
import shutil
import struct
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from PIL import Image
from reidruntime import Manifest
from reidruntime.artifact.checks import check_manifest
from reidruntime.artifact.manifest import engine_manifest_path, file_sha256
from reidruntime.artifact.onnx_metadata import read_onnx
from reidruntime.images.preprocess import decode_bytes, image_pixels, network_input
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
)

VERSION = "1"


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
            if name in written:
                raise InputError(f"{artifact}: there is another artifact named {name}. Rename one of them.")
            place: Place = "gpu" if manifest.engine else device
            network = file_network(name, manifest, batching or Batching(), place=place, instances=instances)
            written[name] = write_models(folder, network, manifest, images, artifact)
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
    folder: Path, network: ModelConfig, manifest: Manifest, images: Sequence[bytes], artifact: Path | None
) -> str:
    """Write a network, what decodes for it, and the ensemble of both, into ``folder``; the ensemble's name.

    They are warmed up with ``images``, bytes of image files. The ``artifact`` is copied to where Triton's backend looks
    for it; None for the Python backend.

    Raises:
        ImageError: an image cannot be decoded.
    """
    decoding = decoder(f"{network.name}_decode", manifest, network)
    ensemble = jpeg_ensemble(f"{network.name}_jpeg", decoding, network)

    # An element of a tensor of strings, in Triton's protocol: length, then bytes.
    _warm_up(folder, decoding, [struct.pack("<I", len(data)) + data for data in images])
    decoded = [decode_bytes(data, f"warm-up image {index}") for index, data in enumerate(images)]
    pixels = np.stack([image_pixels(image, "", manifest.preprocess) for image in decoded])
    ready = pixels if artifact is None else network_input(pixels, manifest)
    _warm_up(folder, network, [row.tobytes() for row in ready])

    for config, model in ((ensemble, None), (decoding, "decode"), (network, None if artifact else "network")):
        version = folder / config.name / VERSION
        version.mkdir(parents=True)  # an ensemble's stays empty, but Triton looks for it
        (version.parent / "config.pbtxt").write_text(text_format.MessageToString(config))
        if model:  # Triton wants a file, which imports the class from the installed runtime
            line = f"from reidruntime.triton.{model} import TritonPythonModel  # noqa: F401\n"
            (version / "model.py").write_text(line)
    if artifact:
        file = "model.onnx" if artifact.suffix == ".onnx" else "model.plan"
        shutil.copyfile(artifact, folder / network.name / VERSION / file)
    return str(ensemble.name)


def _warm_up(repository: Path, config: ModelConfig, rows: Sequence[bytes]) -> None:
    """Add a sample to ``config`` for every batch that is likely, and write the images that they are made of.

    Likely are one image, the sizes that the model prefers, and the largest. Triton makes a batch of ``batch_size``
    requests that all hold the same image; one without ``max_batch_size`` is a request with a batch of its own.
    """
    folder = repository / config.name / "warmup"  # where Triton looks for the files
    folder.mkdir(parents=True)
    fed, endless = config.input[0], cycle(rows)
    per_request = 1 if config.max_batch_size else fed.dims[0]
    for size in sorted({1, *config.dynamic_batching.preferred_batch_size, config.max_batch_size or 1}):
        file = f"batch{size}.bin"
        (folder / file).write_bytes(b"".join(islice(endless, per_request)))
        warm_up = schema.ModelWarmup.Input(data_type=fed.data_type, dims=fed.dims, input_data_file=file)
        config.model_warmup.add(name=f"batch {size}", batch_size=size, inputs={fed.name: warm_up})


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
