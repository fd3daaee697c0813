"""Files and folders that people take for a checkpoint: known by their first bytes, so that a refusal can name them."""

import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from reidruntime.artifact.onnx_metadata import read_onnx

from reidexport.errors import ArtifactError, CheckpointError

_UNPACK = "Unpack it and pass the checkpoint in it"
_DOWNLOAD = "Download the file it stands for."
# (first bytes, what the file is, what to do).
_FIRST_BYTES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the checkpoint itself", _DOWNLOAD),
    (b"<?xml", "an XML file, as of OpenVINO's networks, not a checkpoint", "Pass the checkpoint it was made from."),
    (b"<", "a web page, not the checkpoint itself", _DOWNLOAD),
    (b"\x1f\x8b", "a gzip file", f"{_UNPACK}: gunzip FILE, or tar -xzf FILE."),
    (b"BZh", "a bzip2 file", f"{_UNPACK}: bunzip2 FILE, or tar -xjf FILE."),
    (b"\xfd7zXZ", "an xz file", f"{_UNPACK}: unxz FILE, or tar -xJf FILE."),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", f"{_UNPACK}: unzstd FILE."),
    (b"7z\xbc\xaf", "a 7z archive", f"{_UNPACK}: 7z x FILE."),
    (b"Rar!", "a RAR archive", f"{_UNPACK}: unrar x FILE."),
    (b"REIDGAL1", "a gallery of embeddings, not a checkpoint", "reidexport inspect and search take it."),
    (b"PAR1", "a Parquet file, not a checkpoint", "Embeddings are for reidexport inspect and search."),
    (b"\x93NUMPY", "a NumPy array, not a checkpoint", "Pass the checkpoint that it was made with."),
    (b"\x89HDF", "an HDF5 file, as Keras writes, not a checkpoint of torch", "Export it with its own program."),
    (b"\x89PNG", "an image, not a checkpoint", "Pass the trained weights."),
    (b"\xff\xd8\xff", "an image, not a checkpoint", "Pass the trained weights."),
    (b"ftrt", "a TensorRT engine, not a checkpoint", "It is exported already: pass the checkpoint it was made from."),
    (b"ptrt", "a TensorRT engine, not a checkpoint", "It is exported already: pass the checkpoint it was made from."),
)  # fmt: skip
ENCRYPTED = (
    "encrypted, as NVIDIA TAO writes its models with a key (encryption_key), which is not read. Export it with TAO and "
    "that key (tao model re_identification export), and use the ONNX file."
)
_ENCRYPTED_SUFFIXES = (".etlt", ".tlt", ".hdf5")
# How formats begin that are not encrypted: torch.save's, HDF5, gzip.
_PLAIN = (b"PK", b"\x80", b"\x89HDF", b"\x1f\x8b")
_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".t7", ".tar")
_MOST_LISTED = 6
_LONGEST_NAME = 100  # of a network's input
# What a damaged archive makes its reader raise.
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, struct.error, zlib.error),
    *(OSError, ValueError, RuntimeError, EOFError, LookupError, OverflowError, MemoryError),
)


def refuse_other_files(path: Path) -> None:
    """Refuse what is not a file of ``torch.save`` or safetensors, by its name.

    Raises:
        CheckpointError: what it is, and what to do; or that it is missing or empty.
    """
    if path.is_dir():
        raise CheckpointError(folder_kind(path))
    if not path.is_file():
        raise CheckpointError("there is no such file")
    with path.open("rb") as stream:
        head = stream.read(512)
    if not head:
        raise CheckpointError("the file is empty. Copy or download it again.")
    for first_bytes, what, advice in _FIRST_BYTES:
        if head.startswith(first_bytes):
            raise CheckpointError(f"this is {what}. {advice.replace('FILE', path.name)}")
    if is_encrypted(path):
        raise CheckpointError(f"this is {ENCRYPTED}")
    if head[257:262] == b"ustar":
        raise CheckpointError(
            f"this is a tar archive{_listed(_tar_names(path))}. {_UNPACK}: tar -xf {path.name}."
        )
    if head.startswith(b"PK"):
        _refuse_other_archives(path)
    elif head.startswith(b"\x08") and _reads_as_onnx(path):
        raise CheckpointError(
            "this is an ONNX file, not a checkpoint: it is exported already. Pass the checkpoint it was made from; the "
            "commands that take artifacts (trt, verify, eval, embed, bench) take this file as it is."
        )
    elif head[8:9] != b"{" and not head.startswith((b"PK", b"\x80")):
        raise CheckpointError(
            f"not a checkpoint: neither torch.save's nor safetensors' format (it begins {head[:8]!r})"
        )


def is_encrypted(path: Path) -> bool:
    """Whether a file is a model that NVIDIA TAO encrypted as a whole.

    Its .etlt begins with the length of an input's name and that name, which its PyTorch models leave out; what follows
    looks like noise, so that of its suffixes only those are taken for it whose content has no known format.
    """
    with path.open("rb") as stream:
        head = stream.read(512)
    if path.suffix in _ENCRYPTED_SUFFIXES:
        return (
            len(head) > 4 and not head.startswith(_PLAIN) and head[8:9] != b"{" and not _reads_as_onnx(path)
        )
    size = int.from_bytes(head[:4], "little")
    name = head[4 : 4 + size]
    return (
        0 < size < _LONGEST_NAME and len(head) > 2 * size + 4 and re.fullmatch(rb"[\w./:]+", name) is not None
    )


def _refuse_other_archives(path: Path) -> None:
    """Refuse a zip archive that ``torch.save`` did not write."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except _DAMAGED:
        return  # the reader says what is damaged
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(
            "this is a TorchScript archive (torch.jit.save), a program and not a checkpoint. Save "
            "model.state_dict() of the original model, or torch.jit.load(FILE).state_dict() if you trust the file."
        )
    if any(name.endswith(("/archive_format", "serialized_exported_program.json")) for name in names):
        raise CheckpointError(
            "this is an archive of torch.export, a program and not a checkpoint. Save model.state_dict() of the "
            "original model."
        )
    if names and all(name.endswith(".npy") for name in names):
        raise CheckpointError(
            "this is a NumPy archive (.npz), not a checkpoint. Embeddings are for reidexport inspect and search."
        )
    if not any(name.endswith("/data.pkl") for name in names):
        raise CheckpointError(
            f"this is a zip archive, but not one of torch.save: it holds no data.pkl{_listed(names, 'but ')}. "
            f"{_UNPACK}: unzip {path.name}."
        )


def folder_kind(path: Path) -> str:
    """What a folder is, and what to pass instead."""
    names = sorted(each.name for each in path.iterdir())
    if any(name.endswith(".distcp") for name in names):
        return (
            "this is a folder of torch.distributed.checkpoint. Make one file of it: "
            f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path} model.pth."
        )
    if "data.pkl" in names:
        return (
            "this is a folder with the unpacked content of a checkpoint. Pack it again, without compression: "
            f"cd {path.resolve().parent} && zip -0 -r model.pth {path.resolve().name}."
        )
    inside = [name for name in names if name.endswith(_SUFFIXES)]
    what = "a folder of Hugging Face" if "config.json" in names else "a folder"
    if any(name.endswith(".index.json") for name in names):
        return f"this is {what} with weights in several files. Save them in one: safetensors.torch.save_file."
    if not inside:
        return f"this is {what}, and no file in it ends in {', '.join(_SUFFIXES)}. Pass a checkpoint's file."
    return f"this is {what}, not a file. Pass the checkpoint in it{_listed(inside)}."


def _listed(names: Iterable[str], word: str = "") -> str:
    """The first of some names, in parentheses."""
    files = [name for name in names if not name.endswith("/")]
    more = f" and {len(files) - _MOST_LISTED} more" if len(files) > _MOST_LISTED else ""
    return f" ({word}{', '.join(files[:_MOST_LISTED])}{more})" if files else ""


def _tar_names(path: Path) -> list[str]:
    try:
        with tarfile.open(path, "r:") as archive:
            return archive.getnames()
    except _DAMAGED:
        return []


def _reads_as_onnx(path: Path) -> bool:
    try:
        read_onnx(path)
    except ArtifactError:
        return False
    return True
