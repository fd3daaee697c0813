"""A gallery in one file: mapped into memory, checksummed, and replaced only by a whole new one.

    8 bytes    REIDGAL1
    8 bytes    length of the header, little-endian
    32 bytes   sha256 of the header
    header     JSON, padded with spaces so that the embeddings start at a multiple of 64
    sections   embeddings (float32), lengths (float64), pids, camids, path_ends, times (int64), paths (UTF-8),
               forgotten (JSON), little-endian

The header states the shapes and the sha256 of every section, so that every byte of the file is under a checksum. The
section ``lengths`` holds the norms of the embeddings, ``forgotten`` the persons and paths that were forgotten. Format
version 1 has no times; such files are read, and their times are not known. Version 2 has no forgotten: it is written
where nobody is, so that programs of that version read it; they refuse version 3.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)
from reidruntime.errors import InputError

from reidgallery.input import NOBODY_FORGOTTEN, UNLABELED, Forgotten, RowLabels
from reidgallery.rows import EMBEDDING_NORMS, GalleryRows, Metric, row_norms

MAGIC = b"REIDGAL1"
GALLERY_SUFFIX = ".gallery"
_PREFIX_BYTES = len(MAGIC) + 8 + 32
ABSENT = "absent"  # what file_identity says of a file that is missing
_ALIGNMENT = 64
_CHUNK_BYTES = 2**24
_SECTIONS = {
    "embeddings": "<f4",
    "lengths": "<f8",
    **dict.fromkeys(("pids", "camids", "path_ends", "times"), "<i8"),
    "paths": "u1",
    "forgotten": "u1",
}
_ADDED = {"times": 2, "forgotten": 3}  # in this version of the format


class Header(BaseModel):
    """What the sections are; ``sha256`` of each of them, in hexadecimal."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format_version: Literal[1, 2, 3]
    num_rows: NonNegativeInt
    dim: Annotated[PositiveInt, Field(lt=2**31)]
    metric: Metric
    manifest_sha256: str | None
    path_bytes: NonNegativeInt
    forgotten_bytes: NonNegativeInt | None = None
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
        sizes = {
            "embeddings": 4 * self.num_rows * self.dim,
            "paths": self.path_bytes,
            "forgotten": self.forgotten_bytes or 0,
        }
        names = [name for name in _SECTIONS if _ADDED.get(name, 1) <= self.format_version]
        return {name: sizes.get(name, 8 * self.num_rows) for name in names}


class GalleryContent(NamedTuple):
    """The content of a file: N embeddings with labels.

    Attributes:
        metric: how to compare.
        manifest_sha256: of the artifact that made the embeddings; None where that is not known.
        rows: the embeddings.
        labels: of the rows.
        forgotten: who is not to come back.
    """

    metric: Metric
    manifest_sha256: str | None
    rows: GalleryRows
    labels: RowLabels
    forgotten: Forgotten = NOBODY_FORGOTTEN


def write_gallery(path: Path, content: GalleryContent, expected: str | None) -> str:
    """Write a file and put it in place of the old one, whole.

    Writers of one path wait for each other. Readers keep the old file, which they have mapped.

    Args:
        path: ``*.gallery``.
        content: what to write.
        expected: the identity that :func:`read_gallery` or :func:`file_identity` returned; None to replace any file.

    Returns:
        The identity of the new file.

    Raises:
        InputError: the folder cannot be written to, ``path`` is not a regular file, or somebody else has replaced it
            since it was read.
    """
    if path.suffix != GALLERY_SUFFIX:
        raise InputError(f"{path}: expected a name that ends in {GALLERY_SUFFIX}.")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not a regular file. Choose another path.")
    target = path.resolve()
    try:
        with _lock(target):
            if expected is not None and file_identity(target) not in (expected, ABSENT):
                raise InputError(
                    f"{path}: another program has written the gallery since it was looked at, and what it wrote is "
                    "kept. Do the same again with the gallery as it is now."
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
    sizes = header.section_bytes()
    length = start + sum(sizes.values())
    if length != len(mapped):
        raise InputError(
            f"{path}: the gallery is {len(mapped)} bytes long, expected {length}. Make it again."
        )
    sections = {}
    for name, size in sizes.items():
        sections[name] = np.asarray(mapped[start : start + size]).view(_SECTIONS[name])
        start += size
    for name, section in sections.items():
        is_read = verify or name != "embeddings"
        if is_read and hashlib.sha256(section.data).hexdigest() != header.sha256[name]:
            raise InputError(
                f"{path}: the gallery is damaged: its {name} do not fit their checksum. Make it again."
            )
    text, ends = sections["paths"].tobytes(), [0, *sections["path_ends"].tolist()]
    lengths, (smallest, largest) = sections["lengths"], EMBEDDING_NORMS
    embeddings = sections["embeddings"].reshape(header.num_rows, header.dim)
    if (
        ends != sorted(ends)
        or not np.all((lengths == 0) | ((lengths >= smallest) & (lengths <= largest)))
        or (verify and not np.allclose(row_norms(embeddings, str(path)), lengths, rtol=1e-6, atol=0))
    ):
        raise InputError(
            f"{path}: the gallery is damaged: its path_ends decrease, or its lengths are not those of embeddings. "
            "Make it again."
        )
    labels = RowLabels(
        sections["pids"].copy(),
        sections["camids"].copy(),
        sections["times"].copy() if "times" in sections else np.full(header.num_rows, UNLABELED),
        [os.fsdecode(text[start:stop]) for start, stop in pairwise(ends)],
    )
    rows = GalleryRows([embeddings], sections["lengths"].copy())
    forgotten = NOBODY_FORGOTTEN
    if "forgotten" in sections:
        forgotten = _forgotten_from_json(path, sections["forgotten"].tobytes())
    return GalleryContent(header.metric, header.manifest_sha256, rows, labels, forgotten), identity


def _forgotten_from_json(path: Path, text: bytes) -> Forgotten:
    try:
        listed = json.loads(text)
        pid_paths = frozenset((int(pid), str(path)) for pid, path in listed.get("pid_paths", []))
        return Forgotten(frozenset(map(int, listed["pids"])), frozenset(map(str, listed["paths"])), pid_paths)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: the gallery is damaged: its list of the forgotten cannot be read. Make it again."
        ) from error


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


def file_identity(path: Path) -> str:
    """The checksum of the header, which holds all the others; ``ABSENT`` where the file is missing.

    Raises:
        InputError: it cannot be read.
    """
    try:
        if not path.is_file():
            return ABSENT
        with path.open("rb") as file:
            return file.read(_PREFIX_BYTES)[16:].hex()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error


def _write(path: Path, content: GalleryContent) -> str:
    labels, texts = content.labels, [os.fsencode(text) for text in content.labels.paths]
    listed = {name: sorted(some) for name, some in content.forgotten._asdict().items()}
    forgotten = json.dumps(listed).encode()
    version: Literal[2, 3] = 3 if any(content.forgotten) else 2
    header = Header(
        format_version=version,
        num_rows=len(labels.pids),
        dim=content.rows.parts[0].shape[1],
        metric=content.metric,
        manifest_sha256=content.manifest_sha256,
        path_bytes=sum(map(len, texts)),
        forgotten_bytes=len(forgotten) if version == 3 else None,
        sha256={name: "0" * 64 for name in _SECTIONS if _ADDED.get(name, 1) <= version},
    )
    sections: dict[str, Sequence[NDArray[Any]]] = {
        "embeddings": content.rows.parts,
        "lengths": [content.rows.norms],
        "pids": [labels.pids],
        "camids": [labels.camids],
        "path_ends": [np.cumsum(list(map(len, texts)), dtype=np.int64)],
        "times": [labels.times],
        "paths": [np.frombuffer(b"".join(texts), np.uint8)],
        "forgotten": [np.frombuffer(forgotten, np.uint8)],
    }
    checksums = {}
    with path.open("xb") as file:
        file.write(_packed(header))  # its length is that of the final one
        for name in header.sha256:
            digest = hashlib.sha256()
            for piece in _pieces(sections[name], _SECTIONS[name]):
                file.write(piece)
                digest.update(piece)
            checksums[name] = digest.hexdigest()
        file.seek(0)
        packed = _packed(header.model_copy(update={"sha256": checksums}))
        file.write(packed)
        file.flush()
        os.fsync(file.fileno())
    return packed[16:_PREFIX_BYTES].hex()


def _packed(header: Header) -> bytes:
    left_out = (
        {"forgotten_bytes"} if header.forgotten_bytes is None else None
    )  # version 2 knows no such field
    text = json.dumps(header.model_dump(exclude=left_out)).encode()
    text += b" " * (-(_PREFIX_BYTES + len(text)) % _ALIGNMENT)
    return MAGIC + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + text


def _pieces(arrays: Iterable[NDArray[Any]], dtype: str) -> Iterator[memoryview]:
    """The bytes of the arrays, a few MiB at a time."""
    for array in arrays:
        rows = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
        for start in range(0, len(array), rows):
            yield np.ascontiguousarray(array[start : start + rows], dtype).reshape(-1).view(np.uint8).data


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
