"""What people take for a checkpoint is refused as what it is, with what to do."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from reidexport.checkpoint.weights import read_weights
from reidexport.errors import ArtifactError, CheckpointError
from reidexport.evaluation.opening import kind_of
from tests.conftest import Exported


def saved() -> bytes:
    """A small checkpoint."""
    stream = io.BytesIO()
    torch.save({"conv1.weight": torch.ones(2, 3)}, stream)
    return stream.getvalue()


def zipped(path: Path) -> None:
    """A zip archive with a checkpoint in it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.pth", saved())


def tarred(path: Path) -> None:
    """A tar archive with a checkpoint in it."""
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("model.pth")
        entry.size = len(saved())
        archive.addfile(entry, io.BytesIO(saved()))


OTHERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "gzip": (lambda path: path.write_bytes(gzip.compress(saved())), "a gzip file. Unpack it and pass the checkpoint"),
    "zip": (zipped, "not one of torch.save: it holds no data.pkl (but model.pth). Unpack it and pass the checkpoint"),
    "tar": (tarred, "this is a tar archive (model.pth). Unpack it and pass the checkpoint in it: tar -xf model.pth"),
    "npz": (lambda path: np.savez(path.open("wb"), a=np.ones(3)), "this is a NumPy archive (.npz), not a checkpoint"),
    "npy": (lambda path: np.save(path.open("wb"), np.ones(3)), "this is a NumPy array, not a checkpoint"),
    "gallery": (lambda path: path.write_bytes(b"REIDGAL1" + bytes(99)), "a gallery of embeddings, not a checkpoint"),
    "Parquet": (lambda path: path.write_bytes(b"PAR1" + bytes(99)), "a Parquet file, not a checkpoint"),
    "engine": (lambda path: path.write_bytes(b"ftrt" + bytes(99)), "a TensorRT engine, not a checkpoint"),
    "image": (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(99)), "this is an image, not a checkpoint"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files_are_named(kind: str, tmp_path: Path) -> None:
    """Archives, embeddings, engines and images are told from damaged checkpoints by their first bytes."""
    make, words = OTHERS[kind]
    path = tmp_path / "model.pth"
    make(path)
    with pytest.raises(CheckpointError) as raised:
        read_weights(path)
    assert words in str(raised.value)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_torchscript_is_named(tmp_path: Path) -> None:
    """What torch.jit.save writes is a program, whether its records are compressed or not."""
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), path)
    with pytest.raises(CheckpointError, match=r"this is a TorchScript archive \(torch.jit.save\), a program"):
        read_weights(path)


def test_an_onnx_file_is_named(exported: Exported) -> None:
    """An ONNX file where a checkpoint is expected is called that, and not damaged."""
    with pytest.raises(
        CheckpointError, match="this is an ONNX file, not a checkpoint: it is exported already"
    ):
        read_weights(exported.onnx)


FOLDERS = {
    "of nothing": ((), "this is a folder, and no file in it ends in .pth, .pt"),
    "with checkpoints": (
        ("a.pth", "b.pth", "c.txt"), "this is a folder, not a file. Pass the checkpoint in it (a.pth, b.pth)"
    ),
    "of Hugging Face": (
        ("config.json", "pytorch_model.bin"),
        "this is a folder of Hugging Face, not a file. Pass the checkpoint in it (pytorch_model.bin)",
    ),
    "in several files": (
        ("config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"),
        "this is a folder of Hugging Face with weights in several files. Save them in one",
    ),
    "unpacked": (("data.pkl", "version"), "a folder with the unpacked content of a checkpoint. Pack it again, without"),
    "distributed": ((".metadata", "__0_0.distcp"), "a folder of torch.distributed.checkpoint. Make one file of it"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_are_named(kind: str, tmp_path: Path) -> None:
    """A folder is called that, with what it is and which file in it to pass; by every command that takes any file."""
    names, words = FOLDERS[kind]
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError) as raised:
        read_weights(tmp_path)
    assert words in str(raised.value)
    with pytest.raises(ArtifactError) as refused:
        kind_of(tmp_path)
    assert str(refused.value) == str(raised.value)


def test_a_packed_folder_is_read_again(tmp_path: Path) -> None:
    """The advice for an unpacked checkpoint works: packed without compression, it is read."""
    (tmp_path / "a.pth").write_bytes(saved())
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        archive.extractall(tmp_path)
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:
        for path in sorted((tmp_path / "archive").rglob("*")):
            archive.write(path, path.relative_to(tmp_path))
    assert read_weights(tmp_path / "b.pth").state_dict["conv1.weight"].tolist() == [[1, 1, 1], [1, 1, 1]]


ENCRYPTED = {
    "model.etlt": b"\x00\x00\x00\x00" + bytes(range(40, 240)),
    "model.tlt": bytes(range(40, 240)),
    "weights.hdf5": bytes(range(40, 240)),
    "renamed.bin": b"\x07\x00\x00\x00input_1" + bytes(range(40, 240)),
}


@pytest.mark.parametrize("name", ENCRYPTED)
def test_encrypted_files_of_tao_are_named(name: str, tmp_path: Path) -> None:
    """Its .etlt, .tlt and .hdf5 under a key are called encrypted, with what to do, by every command."""
    path = tmp_path / name
    path.write_bytes(ENCRYPTED[name])
    words = (
        r"this is encrypted, as NVIDIA TAO writes its models with a key .* Export it with TAO and that key"
    )
    with pytest.raises(CheckpointError, match=words):
        read_weights(path)
    with pytest.raises(ArtifactError, match=words):
        kind_of(path)


def test_encrypted_weights_in_a_checkpoint_are_named(tmp_path: Path) -> None:
    """What TAO's Lightning saves under a key: bytes in the place of tensors."""
    path = tmp_path / "reid_model_latest.pth"
    torch.save({"epoch": 5, "state_dict": b"\x01" * 99, "state_dict_encrypted": "AES"}, path)
    with pytest.raises(CheckpointError, match="its weights are encrypted, as NVIDIA TAO writes"):
        read_weights(path)


def test_what_is_not_encrypted_is_called_what_it_is(tmp_path: Path) -> None:
    """TAO's suffixes alone prove nothing: a plain checkpoint is read, and plain HDF5 is called that."""
    plain = tmp_path / "model.tlt"
    plain.write_bytes(saved())
    assert read_weights(plain).state_dict.keys() == {"conv1.weight"}
    keras = tmp_path / "weights.hdf5"
    keras.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
    with pytest.raises(CheckpointError, match="this is an HDF5 file, as Keras writes"):
        read_weights(keras)
