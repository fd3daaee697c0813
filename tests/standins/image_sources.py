"""Images in files, tars and Parquet files to embed, and what is read of them."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from reidruntime import EncodedImage

from reidexport.embed.files import read_gallery
from reidexport.embed.plan import Columns, Shard
from reidexport.embed.reading import read_shard
from reidexport.errors import ImageError

COLUMNS = Columns()


def jpeg(seed: int) -> bytes:
    """A small JPEG of noise."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def write_images(folder: Path, count: int) -> list[str]:
    """``count`` JPEG files, named in order."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        (folder / f"{index:04d}.jpg").write_bytes(jpeg(index))
    return sorted(map(str, folder.iterdir()))


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    """A tar of these members."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def contents(shard: Shard, columns: Columns = COLUMNS) -> dict[str, bytes | str]:
    """The images of a shard: their bytes, or why there are none."""
    found: dict[str, bytes | str] = {}
    for name, image in read_shard(shard, Path(), columns):
        if isinstance(image, EncodedImage):
            found[name] = image.data
        else:
            assert isinstance(image, ImageError)
            found[name] = str(image)
    return found


def rows_of(path: Path) -> tuple[list[str], bytes]:
    """Paths and the bits of the embeddings of a file or a folder."""
    gallery = read_gallery(path)
    return list(gallery.paths), b"".join(np.asarray(part).tobytes() for part in gallery.parts)
