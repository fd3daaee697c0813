"""Small whole files of every kind that a reader takes, made anew: what the fuzzer begins with.

``python -m tests.fuzz.seeds FOLDER TARGET...`` writes them, and the committed inputs, into a folder for each target.
"""

import io
import json
import random
import sys
import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper
from reidgallery import Gallery
from reidruntime.artifact.manifest import METADATA_KEY

from reidexport.embed.files import write_embeddings
from reidexport.embed.table import write_table
from tests.fuzz.inputs import inputs_of
from tests.standins.camera_profiles import small_profile
from tests.standins.checkpoints import lost_classes
from tests.standins.runtime_models import (
    DIM,
    small_manifest,
    tensorrt_quantization,
    write_artifact,
    write_foreign,
)

_NAMES = ["0002_c1s1_000451_03.jpg", "-1_c2_t1764086400000.png", "folder/é.jpg"]


def seeds(folder: Path) -> dict[str, list[bytes]]:
    """Inputs for every target by its name; ``folder`` is for files on the way."""
    checkpoints = _checkpoints()
    zipped = [data for data in checkpoints if data.startswith(b"PK")]
    onnx_files = _onnx_files(folder)
    draw = random.Random(0)
    return {
        "checkpoint": checkpoints,
        "pickle": [_pickle_in(data) for data in zipped],
        "pickle_program": [draw.randbytes(length) for length in (4, 16, 64)],
        "legacy_program": [draw.randbytes(length) for length in (4, 16, 64)],
        "safetensors": [safetensors.torch.save(_weights()), safetensors.torch.save({}, {"format": "pt"})],
        "onnx_metadata": onnx_files,
        "onnx_graph": onnx_files,
        "cameras": _camera_profiles(folder),
        "manifest": _manifests(),
        **_embeddings(folder),
        "image": _images(),
        **_labels(folder),
        "record": [json.dumps({"kind": kind, "version": 1}).encode() for kind in ("verification", "search")],
    }


def _weights() -> dict[str, torch.Tensor]:
    return {
        "conv1.weight": torch.ones(2, 3, 1, 1),
        "bn1.running_var": torch.ones(2).half(),
        "n": torch.tensor(1),
    }


def _checkpoints() -> list[bytes]:
    weights = _weights()
    with lost_classes():
        layers = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1, bias=False), torch.nn.BatchNorm2d(2))
    adam = torch.optim.Adam(layers.parameters()).state_dict()
    contents = [
        weights,
        {"state_dict": {f"module.{key}": tensor for key, tensor in weights.items()}, "epoch": 1},
        {"model": {}, "net": layers},
        layers,
        adam,
        {"centers": torch.ones(2, 2)},
        {"format": "reidexport.checkpoint.v1", "architecture": {}, "preprocess": {}, "state_dict": weights},
    ]
    files = []
    for content in contents:
        for zipped in (True, False):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
            files.append(buffer.getvalue())
    return files


def _pickle_in(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def _camera_profiles(folder: Path) -> list[bytes]:
    artifact = write_artifact(folder / "site.onnx")
    profiles = (small_profile(artifact, 3), small_profile(artifact, 3, (), standardizes=False))
    return [profile.to_json().encode() for profile in profiles]


def _manifests() -> list[bytes]:
    plain = small_manifest()
    static = small_manifest(4, quantization=tensorrt_quantization(("layer",)))
    return [manifest.to_json().encode() for manifest in (plain, static)]


def _onnx_files(folder: Path) -> list[bytes]:
    artifact, foreign = write_artifact(folder / "own.onnx"), write_foreign(folder / "foreign.onnx", 2)
    nodes = [
        helper.make_node("Constant", [], ["a"], value=numpy_helper.from_array(np.ones(2, np.float16))),
        helper.make_node("Constant", [], ["b"], value_ints=[1, 2]),
        helper.make_node("Constant", [], ["c"], value_float=0.5),
        helper.make_node("Resize", ["x", "a", "b"], ["y"], mode="nearest"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["n", 2]) for name in "xy"]
    weights = [
        helper.make_tensor("w", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("v", 10, [1], [0.5]),
    ]
    graph = helper.make_graph(nodes, "constants", values[:1], values[1:], weights)
    model = helper.make_model(graph, producer_name="other")
    model.metadata_props.add(key=METADATA_KEY, value="{}")
    return [artifact.read_bytes(), foreign.read_bytes(), model.SerializeToString()]


def _embeddings(folder: Path) -> dict[str, list[bytes]]:
    manifest = small_manifest()
    rows = np.random.default_rng(0).standard_normal((3, DIM)).astype(np.float32)
    kinds: dict[str, list[bytes]] = {"gallery": [], "npz": [], "parquet": []}
    for kind, files in kinds.items():
        for count in (0, 3):
            path = folder / f"{count}.{kind}"
            write_embeddings(path, _NAMES[:count], [rows[:count]], manifest)
            files.append(path.read_bytes())
    gallery = Gallery(2, metric="euclidean")
    gallery.add(rows[:, :2], pids=[1, 2, -1], camids=[0, 1, 2], times=[5, 6, 7], paths=["", "b", "c"])
    gallery.save(folder / "labeled.gallery")
    kinds["gallery"].append((folder / "labeled.gallery").read_bytes())
    write_table(folder / "labeled.parquet", gallery)  # type: ignore[arg-type] # any gallery has such parts
    kinds["parquet"].append((folder / "labeled.parquet").read_bytes())
    return kinds


def _labels(folder: Path) -> dict[str, list[bytes]]:
    columns = {
        "path": ["a.jpg", "b.jpg"],
        "person": [1, -1],
        "camera": [1, None],
        "time": [5, 6],
        "more": ["", "x"],
    }
    table = folder / "labels.parquet"
    pq.write_table(pa.table(columns), table)
    text = 'path,person,camera,time\na.jpg,1,2,2026-01-01T00:00:00Z\n"b,.jpg",-1,,7\n'
    return {"labels_csv": [text.encode()], "labels_parquet": [table.read_bytes()]}


def _images() -> list[bytes]:
    rng = np.random.default_rng(0)
    color = PIL.Image.fromarray(rng.integers(0, 255, (9, 7, 3), np.uint8))
    forms = [
        ("JPEG", "RGB", {}), ("JPEG", "L", {}), ("JPEG", "CMYK", {}), ("JPEG", "RGB", {"progressive": True}),
        ("PNG", "RGB", {}), ("PNG", "P", {}), ("PNG", "LA", {}), ("PNG", "1", {}), ("PNG", "I;16", {}),
        ("BMP", "RGB", {}), ("BMP", "P", {}), ("GIF", "P", {}), ("WEBP", "RGB", {}), ("PPM", "RGB", {}),
        ("TIFF", "RGB", {}), ("TIFF", "F", {}), ("TIFF", "I", {}), ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "RGB", {"compression": "jpeg"}), ("TGA", "RGBA", {}), ("ICO", "RGBA", {}), ("JPEG2000", "RGB", {}),
    ]  # fmt: skip
    files = []
    for form, mode, options in forms:
        buffer = io.BytesIO()
        image = color.convert("I").convert(mode) if mode == "I;16" else color.convert(mode)
        image.save(buffer, form, **options)
        files.append(buffer.getvalue())
    return files


def main(out: Path, *targets: str) -> None:
    """Write the inputs of some targets."""
    with tempfile.TemporaryDirectory() as folder:
        whole_files = seeds(Path(folder))
    for target in targets:
        (out / target).mkdir(parents=True, exist_ok=True)
        for data in [*whole_files[target], *inputs_of(target).values()]:
            (out / target / sha256(data).hexdigest()[:16]).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
