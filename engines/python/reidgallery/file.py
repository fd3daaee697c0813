"""A gallery in one file: mapped into memory, checksummed, and replaced only by a whole new one.

    8 bytes    REIDGAL1
    8 bytes    length of the header, little-endian
    32 bytes   sha256 of the header
    header     JSON, padded with spaces so that the embeddings start at a multiple of 64
    sections   embeddings (float32), lengths (float64), pids, camids, path_ends, times (int64), paths (UTF-8),
               little-endian

The header states the shapes and the sha256 of every section, so that every byte of the file is under a checksum. The
section ``lengths`` holds the norms of the embeddings. Format version 1 has no times; such files are read, and their
times are not known.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError, model_validator
from reidruntime.errors import InputError

from reidgallery.input import UNLABELED, RowLabels
from reidgallery.rows import Features, Floats64, Metric

MAGIC = b"REIDGAL1"
SUFFIX = ".gallery"
_PREFIX_BYTES = len(MAGIC) + 8 + 32
_ALIGNMENT = 64
_CHUNK_BYTES = 2**24
_NO_CHECKSUM = "0" * 64
_SECTIONS = ("embeddings", "lengths", "pids", "camids", "path_ends", "times", "paths")


class Header(BaseModel):
    """What the sections are; ``sha256`` of each of them, in hexadecimal."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format_version: Literal[1, 2] = 2
    num_rows: NonNegativeInt
    dim: PositiveInt
    metric: Metric
    manifest_sha256: str | None
    path_bytes: NonNegativeInt
    sha256: dict[str, str]

    @model_validator(mode="after")
    def _every_section_has_a_checksum(self) -> Self:
        if self.sha256.keys() != self.section_bytes().keys():
            raise ValueError(
                f"the sections of version {self.format_version} are {', '.join(self.section_bytes())}"
            )
        return self

    def section_bytes(self) -> dict[str, int]:
        """The size of each section, in the order of the file."""
        sizes = {"embeddings": 4 * self.num_rows * self.dim, "paths": self.path_bytes}
        names = [name for name in _SECTIONS if name != "times" or self.format_version > 1]
        return {name: sizes.get(name, 8 * self.num_rows) for name in names}


class GalleryContent(NamedTuple):
    """The content of a file: N embeddings with labels.

    Attributes:
        metric: how to compare.
        manifest_sha256: of the artifact that made the embeddings; None where that is not known.
        parts: float32 arrays of shape (n, dim), N rows in all, one part at least.
        norms: float64, (N,): Euclidean norms of the rows.
        labels: of the rows.
    """

    metric: Metric
    manifest_sha256: str | None
    parts: Sequence[Features]
    norms: Floats64
    labels: RowLabels


def write_gallery(path: Path, content: GalleryContent, expected: str | None) -> str:
    """Write a file and put it in place of the old one, whole.

    Writers of one path wait for each other. Readers keep the old file, which they have mapped.

    Args:
        path: ``*.gallery``.
        content: what to write.
        expected: the identity that :func:`read_gallery` returned; None to replace any file.

    Returns:
        The identity of the new file.

    Raises:
        InputError: the folder cannot be written to, ``path`` is not a regular file, or somebody else has replaced it
            since it was read.
    """
    if path.suffix != SUFFIX:
        raise InputError(f"{path}: expected a name that ends in {SUFFIX}.")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not a regular file. Choose another path.")
    target = path.resolve()
    try:
        with _lock(target):
            if expected is not None and _identity(target) not in (expected, None):
                raise InputError(
                    f"{path}: another program has replaced the gallery since it was loaded. Load it again, and add "
                    "the new rows to that."
                )
            # Exactly what a killed save of this path left: others may be writing names that begin alike.
            for stale in target.parent.glob(f".{escape(target.stem)}.{'[0-9a-f]' * 8}.unfinished"):
                stale.unlink(missing_ok=True)
            temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.unfinished")
            try:
                identity = _write(temporary, content)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(target.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}). Choose another path.") from error
    return identity


def read_gallery(path: Path, *, verify: bool = True) -> tuple[GalleryContent, str]:
    """Map a gallery into memory.

    Args:
        path: what :func:`write_gallery` wrote.
        verify: read the embeddings once to compare their checksum; False leaves them on the disk until they are
            searched. Everything else is always checked.

    Returns:
        Its content, with one part that is mapped, and the file's identity.

    Raises:
        InputError: it is missing, not a gallery, cut off, or a byte of it is wrong.
    """
    try:
        mapped = np.memmap(path, np.uint8, "r")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise InputError(f"{path}: the file is empty, expected a gallery. Make it again.") from error
    header, start, identity = _header(path, mapped)
    sections = {}
    for name, size in header.section_bytes().items():
        sections[name] = mapped[start : start + size]
        start += size
    if start != len(mapped):
        raise InputError(f"{path}: the gallery is {len(mapped)} bytes long, expected {start}. Make it again.")
    for name, section in sections.items():
        is_read = verify or name != "embeddings"
        if is_read and hashlib.sha256(section.data).hexdigest() != header.sha256[name]:
            raise InputError(
                f"{path}: the gallery is damaged: its {name} do not fit their checksum. Make it again."
            )
    embeddings = np.asarray(sections["embeddings"]).view("<f4").reshape(header.num_rows, header.dim)
    integers = {
        name: np.array(sections[name].view("<i8"))
        for name in ("pids", "camids", "path_ends", "times")
        if name in sections
    }
    text = sections["paths"].tobytes()
    labels = RowLabels(
        integers["pids"],
        integers["camids"],
        integers.get("times", np.full(header.num_rows, UNLABELED)),
        [os.fsdecode(text[start:stop]) for start, stop in pairwise([0, *integers["path_ends"].tolist()])],
    )
    norms = np.array(sections["lengths"].view("<f8"))
    return GalleryContent(header.metric, header.manifest_sha256, [embeddings], norms, labels), identity


def _header(path: Path, mapped: NDArray[np.uint8]) -> tuple[Header, int, str]:
    """The checked header, where the sections start, and the header's checksum, which names the content."""
    prefix = mapped[:_PREFIX_BYTES].tobytes()
    if not prefix.startswith(MAGIC):
        raise InputError(f"{path}: not a gallery: it does not start with {MAGIC.decode()}.")
    stop = _PREFIX_BYTES + int.from_bytes(prefix[8:16], "little")
    text = mapped[_PREFIX_BYTES:stop].tobytes()
    if hashlib.sha256(text).digest() != prefix[16:]:
        raise InputError(
            f"{path}: the gallery is damaged: its header does not fit its checksum. Make it again."
        )
    try:
        header = Header.model_validate_json(text)
    except ValidationError as error:
        raise InputError(
            f"{path}: written by another version of reidruntime ({error}). Make it again."
        ) from error
    return header, stop, prefix[16:].hex()


def _identity(path: Path) -> str | None:
    """The checksum of the header, which holds all the others; None where the file is missing."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return file.read(_PREFIX_BYTES)[16:].hex()


def _write(path: Path, content: GalleryContent) -> str:
    labels, texts = content.labels, [os.fsencode(text) for text in content.labels.paths]
    header = Header(
        num_rows=len(labels.pids),
        dim=content.parts[0].shape[1],
        metric=content.metric,
        manifest_sha256=content.manifest_sha256,
        path_bytes=sum(map(len, texts)),
        sha256=dict.fromkeys(_SECTIONS, _NO_CHECKSUM),
    )
    sections: dict[str, Iterable[bytes | memoryview]] = {
        "embeddings": _little_endian(content.parts, "<f4"),
        "lengths": _little_endian([content.norms], "<f8"),
        "pids": _little_endian([labels.pids], "<i8"),
        "camids": _little_endian([labels.camids], "<i8"),
        "path_ends": _little_endian([np.cumsum([len(text) for text in texts], dtype=np.int64)], "<i8"),
        "times": _little_endian([labels.times], "<i8"),
        "paths": texts,
    }
    with path.open("xb") as file:
        file.write(_packed(header))  # its length is that of the final one
        checksums = {name: _write_section(file.write, pieces) for name, pieces in sections.items()}
        file.seek(0)
        packed = _packed(header.model_copy(update={"sha256": checksums}))
        file.write(packed)
        file.flush()
        os.fsync(file.fileno())
    return packed[16:_PREFIX_BYTES].hex()


def _packed(header: Header) -> bytes:
    text = json.dumps(header.model_dump()).encode()
    text += b" " * (-(_PREFIX_BYTES + len(text)) % _ALIGNMENT)
    return MAGIC + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + text


def _little_endian(arrays: Iterable[NDArray[np.generic]], dtype: str) -> Iterator[memoryview]:
    """The bytes of the arrays, a few MiB at a time."""
    for array in arrays:
        rows = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
        for start in range(0, len(array), rows):
            yield np.ascontiguousarray(array[start : start + rows], dtype).reshape(-1).view(np.uint8).data


def _write_section(write: Callable[[bytes | memoryview], int], pieces: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        write(piece)
        digest.update(piece)
    return digest.hexdigest()


@contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Keep other writers of the path waiting; the lock goes with its process, however that ends.

    Without ``fcntl`` (Windows) writers do not wait: the last one's file stays, whole.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        yield
        return
    with target.with_name(f".{target.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sync_folder(folder: Path) -> None:
    """Make a renaming last through a power cut, where folders can be synchronized."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
