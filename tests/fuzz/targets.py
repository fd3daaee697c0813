"""The readers of files that come from elsewhere, each called on a few bytes.

Whatever the bytes are, a reader answers or raises an error of the project's own tree, in words that fit on a screen,
without a warning. The rest is a finding. What a target does not need is not imported: torch and numba take seconds.
"""

import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from reidruntime.errors import ReidExportError

MAX_MESSAGE = 20_100


class Target(NamedTuple):
    """A reader of a file, what its name ends in, and what the fuzzer's bytes are put into: by default the file."""

    read: Callable[[Path], object]
    suffix: str = ""
    write: Callable[[Path, bytes], object] = Path.write_bytes


def try_input(name: str, data: bytes, folder: Path) -> bool:
    """Give a reader one input.

    Args:
        name: of the target.
        data: the input.
        folder: where its file is written.

    Returns:
        Whether it was accepted; what is against the contract raises.
    """
    target = TARGETS[name]
    path = folder / f"input{target.suffix}"
    path.unlink(missing_ok=True)  # what an earlier input's file was mapped into stays whole
    target.write(path, data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings(
            "ignore", module=r"(PIL|numpy\.lib)\."
        )  # of damage that they read nevertheless
        try:
            target.read(path)
        except ReidExportError as error:
            if len(str(error)) > MAX_MESSAGE:
                raise AssertionError(f"a message of {len(str(error))} characters") from None
            return False
    return True


@contextmanager
def checksums_off(name: str) -> Iterator[None]:
    """Take every checksum of a target's files for right: else a change would never come to what is behind one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zipfile.ZipExtFile, "_update_crc", lambda self, data: None)
        if name == "gallery":
            import reidgallery.file

            patch.setattr(reidgallery.file, "hashlib", SimpleNamespace(sha256=lambda _: _AnySum()))
        if name == "image":
            from PIL import PngImagePlugin

            patch.setattr(PngImagePlugin.ChunkStream, "crc", PngImagePlugin.ChunkStream.crc_skip)
        yield


class _AnySum(bytes):
    """Equal to every checksum."""

    __hash__ = bytes.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def digest(self) -> "_AnySum":
        """See hashlib."""
        return self

    hexdigest = digest


def _read_weights(path: Path) -> None:
    from reidexport.checkpoint.weights import read_weights

    read_weights(path)


def _write_pickle(path: Path, data: bytes) -> None:
    from tests.standins.pickles import write_zip

    write_zip(path, data, {"program": bytes(64), "0": bytes(24), "1": bytes(4), "2": bytes(8)})


def _write_program(path: Path, data: bytes) -> None:
    from tests.fuzz.programs import pickle_of

    _write_pickle(path, pickle_of(data))


def _write_legacy_program(path: Path, data: bytes) -> None:
    from tests.fuzz.programs import pickle_of
    from tests.standins.pickles import legacy_bytes

    path.write_bytes(legacy_bytes(pickle_of(data), ("program",), bytes([16, *bytes(71)])))


def _read_onnx(path: Path) -> None:
    from reidruntime.artifact.checks import check_manifest
    from reidruntime.artifact.onnx_metadata import manifest_from_onnx, read_onnx

    file, manifest = read_onnx(path), manifest_from_onnx(path)
    if manifest is not None:
        check_manifest(manifest, file, path)


def _read_onnx_graph(path: Path) -> None:
    from reidruntime.artifact.onnx_graph import read_onnx_graph

    read_onnx_graph(path)


def _read_manifest(path: Path) -> None:
    from reidruntime.artifact.own_manifest import artifact_manifest

    artifact_manifest(path)


def _read_camera_profile(path: Path) -> None:
    from reidruntime.artifact.camera_profile import profile_from_json

    profile_from_json(path.read_bytes(), str(path))


def _write_manifest(path: Path, data: bytes) -> None:
    path.with_name(f"{path.name}.json").write_bytes(data)


def _search(path: Path) -> None:
    """Open a gallery and use all that it holds."""
    from reidexport.embed.files import read_gallery

    gallery = read_gallery(path)
    for part in gallery.labeled_parts():
        if (
            not len(part.embeddings)
            == len(part.pids)
            == len(part.camids)
            == len(part.times)
            == len(part.paths)
        ):
            raise AssertionError("rows and labels differ in number")
        gallery.search(part.embeddings[:1], 3)


def _read_image(path: Path) -> None:
    from reidruntime.artifact.manifest import Preprocess
    from reidruntime.images.preprocess import image_pixels

    small = Preprocess(height_px=8, width_px=4, mean=(0, 0, 0), std=(1, 1, 1), in_graph=True)
    image_pixels(path, path.name, small, depth="scale")


def _read_labels(path: Path) -> None:
    from reidexport.data.label_file import read_label_file

    read_label_file(path).labels_of(["0002_c1s1_000451_03.jpg", str(path.parent / "a.jpg")])


def _read_record(path: Path) -> None:
    from reidexport.records.reading import read_record

    read_record(path)


TARGETS = {
    "checkpoint": Target(_read_weights),
    "pickle": Target(_read_weights, write=_write_pickle),
    "pickle_program": Target(_read_weights, write=_write_program),
    "legacy_program": Target(_read_weights, write=_write_legacy_program),
    "safetensors": Target(_read_weights, ".safetensors"),
    "onnx_metadata": Target(_read_onnx, ".onnx"),
    "onnx_graph": Target(_read_onnx_graph, ".onnx"),
    "cameras": Target(_read_camera_profile, ".cameras.json"),
    "manifest": Target(_read_manifest, ".engine", _write_manifest),
    "gallery": Target(_search, ".gallery"),
    "npz": Target(_search, ".npz"),
    "parquet": Target(_search, ".parquet"),
    "image": Target(_read_image),
    "labels_csv": Target(_read_labels, ".csv"),
    "labels_parquet": Target(_read_labels, ".parquet"),
    "record": Target(_read_record, ".json"),
}
