"""Model repositories: a folder for each model, with its configuration, its file and what it is warmed up with."""

import io
import secrets
import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from PIL import Image
from reidruntime import Manifest
from reidruntime.images.preprocess import decode_bytes, image_pixels, network_input
from tritonclient.grpc import model_config_pb2 as schema

from reidexport.data.synthetic import draw_people
from reidexport.errors import InputError
from reidexport.serving.triton.config import ModelConfig, decoder, jpeg_ensemble

VERSION = "1"
_WARM_UP = "warmup"  # where Triton looks for the files


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
    """Write a network, what decodes for it, and the ensemble of both, into ``folder``.

    Args:
        folder: the repository.
        network: its configuration.
        manifest: its artifact's.
        images: bytes of the image files to warm up with.
        artifact: copied where Triton's backend looks for it; None for the Python backend.

    Returns:
        The name of the ensemble.

    Raises:
        ImageError: an image cannot be decoded.
    """
    decoding = decoder(f"{network.name}_decode", manifest, network)
    ensemble = jpeg_ensemble(f"{network.name}_jpeg", decoding, network)
    _write_config(folder / ensemble.name, ensemble)
    (folder / ensemble.name / VERSION).mkdir()  # stays empty, but Triton looks for it

    # An element of a tensor of strings, in Triton's protocol: length, then bytes.
    _warm_up(folder / decoding.name, decoding, [struct.pack("<I", len(data)) + data for data in images])
    _write_config(folder / decoding.name, decoding)
    _write_python(folder / decoding.name, "decode")

    decoded = [decode_bytes(data, f"warm-up image {index}") for index, data in enumerate(images)]
    pixels = np.stack([image_pixels(image, "", manifest.preprocess) for image in decoded])
    ready = pixels if artifact is None else network_input(pixels, manifest)
    _warm_up(folder / network.name, network, [row.tobytes() for row in ready])
    _write_config(folder / network.name, network)
    if artifact is None:
        _write_python(folder / network.name, "network")
    else:
        (folder / network.name / VERSION).mkdir()
        file = "model.onnx" if artifact.suffix == ".onnx" else "model.plan"
        shutil.copyfile(artifact, folder / network.name / VERSION / file)
    return str(ensemble.name)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` to fill; rename it into place when the block succeeds.

    Raises:
        InputError: ``path`` exists and is not an empty folder, or nothing can be written beside it.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{path}: exists already. Choose another folder, or remove it first.")
    temporary = path.resolve().with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir()
    except OSError as error:
        raise InputError(
            f"{path}: cannot write there ({error.strerror}). Make the folder above it, or choose another path."
        ) from error
    try:
        yield temporary
        temporary.replace(path.resolve())
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_config(folder: Path, config: ModelConfig) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.pbtxt").write_text(text_format.MessageToString(config))


def _write_python(folder: Path, model: str) -> None:
    """Triton wants a file, which imports the class from the installed runtime."""
    (folder / VERSION).mkdir()
    line = f"from reidruntime.triton.{model} import TritonPythonModel  # noqa: F401\n"
    (folder / VERSION / "model.py").write_text(line)


def _warm_up(folder: Path, config: ModelConfig, rows: Sequence[bytes]) -> None:
    """Add a sample to ``config`` for every batch that is likely, and write the images that they are made of.

    Likely are one image, the sizes that the model prefers, and the largest. Triton makes a batch of ``batch_size``
    requests that all hold the same image; one without ``max_batch_size`` is a request with a batch of its own.
    """
    (folder / _WARM_UP).mkdir(parents=True)
    fed, endless = config.input[0], cycle(rows)
    per_request = 1 if config.max_batch_size else fed.dims[0]
    for size in sorted({1, *config.dynamic_batching.preferred_batch_size, config.max_batch_size or 1}):
        file = f"batch{size}.bin"
        (folder / _WARM_UP / file).write_bytes(b"".join(islice(endless, per_request)))
        warm_up = schema.ModelWarmup.Input(data_type=fed.data_type, dims=fed.dims, input_data_file=file)
        config.model_warmup.add(name=f"batch {size}", batch_size=size, inputs={fed.name: warm_up})
