"""Model repositories: a folder for each model, with its configuration, its file and what it is warmed up with."""

import io
import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

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


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` to fill; rename it into place when the block succeeds.

    Raises:
        InputError: ``path`` exists and is not an empty folder, or nothing can be written beside it.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{path}: exists already. Choose another folder, or remove it first.")
    try:
        temporary = TemporaryDirectory(prefix=f".{path.name}.", dir=path.resolve().parent)
    except OSError as error:
        raise InputError(
            f"{path}: cannot write there ({error.strerror}). Make the folder above it, or choose another path."
        ) from error
    with temporary as outer:
        folder = Path(outer, "whole")  # of the usual permissions, which the outer one has not
        folder.mkdir()
        yield folder
        folder.replace(path.resolve())


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
