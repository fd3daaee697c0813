"""A finished run's results in small files: weights in half precision and in parts, history, result and a manifest."""

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from reidexport.errors import CheckpointError
from reidexport.files import replaced_when_whole
from train.checkpoints import LAST, read_training_checkpoint
from train.result import HISTORY, RESULT

MANIFEST = "manifest.json"
MAX_PART_BYTES = 15 << 20
_STRICT = ConfigDict(extra="forbid", frozen=True)


class Part(BaseModel):
    """One file of a cut checkpoint."""

    model_config = _STRICT
    name: str
    size_bytes: int
    sha256: str


class PartsManifest(BaseModel):
    """What belongs together; ``sha256`` and ``parts`` are of the checkpoint file that the parts make."""

    model_config = _STRICT
    format: Literal["reidexport.parts.v1"] = "reidexport.parts.v1"
    epoch: int
    num_epochs: int
    init: str
    dataset: str
    sha256: str
    parts: tuple[Part, ...]


def write_parts(run: Path, folder: Path, *, max_part_bytes: int = MAX_PART_BYTES) -> list[Path]:
    """Write a run's results so far into files of less than 16 MiB each.

    Matrices and convolutions of ``last.pth`` are rounded to float16, unless that overflows; vectors, such as those of
    BatchNorms, stay in float32.

    Args:
        run: a run's folder, finished or stopped.
        folder: where to; made if missing.
        max_part_bytes: of a part of the weights.

    Returns:
        The files: ``weights-N.part``, ``history.json``, ``result.json`` of a finished run, and ``manifest.json``.

    Raises:
        CheckpointError: ``run`` holds no checkpoint.
    """
    saved = read_training_checkpoint(run / LAST)
    del saved["state"]
    saved["state_dict"] = {name: _to_float16(tensor) for name, tensor in saved["state_dict"].items()}
    stream = io.BytesIO()
    torch.save(saved, stream)
    data = stream.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    cuts = [data[start : start + max_part_bytes] for start in range(0, len(data), max_part_bytes)]
    parts = [
        Part(name=f"weights-{number}.part", size_bytes=len(cut), sha256=_sha256(cut))
        for number, cut in enumerate(cuts, start=1)
    ]
    for part, cut in zip(parts, cuts, strict=True):
        _write(folder / part.name, cut)
    texts = [path for path in (run / HISTORY, run / RESULT) if path.is_file()]
    for path in texts:
        shutil.copy(path, folder)
    manifest = PartsManifest(
        epoch=saved["run"]["epoch"],
        num_epochs=saved["recipe"]["schedule"]["num_epochs"],
        init=saved["run"]["init"],
        dataset=saved["run"]["dataset"],
        sha256=_sha256(data),
        parts=tuple(parts),
    )
    _write(folder / MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())
    return [folder / name for name in (*(part.name for part in parts), *(p.name for p in texts), MANIFEST)]


def join_parts(folder: Path, out: Path) -> PartsManifest:
    """Join the parts that :func:`write_parts` wrote into a checkpoint.

    Args:
        folder: with the parts and their manifest.
        out: the checkpoint to write.

    Returns:
        The manifest.

    Raises:
        CheckpointError: the manifest or a part is missing, or differs from what the manifest says.
    """
    manifest = _read_manifest(folder / MANIFEST)
    cuts = []
    for part in manifest.parts:
        path = folder / part.name
        if Path(part.name).name != part.name or not path.is_file():
            raise CheckpointError(
                f"{path}: there is no such file, which {MANIFEST} names. Copy all files again."
            )
        cuts.append(path.read_bytes())
        found = (len(cuts[-1]), _sha256(cuts[-1]))
        if found != (part.size_bytes, part.sha256):
            raise CheckpointError(
                f"{path}: expected {part.size_bytes} bytes with sha256 {part.sha256[:12]}, found {found[0]} with "
                f"{found[1][:12]}. Copy it again."
            )
    data = b"".join(cuts)
    if _sha256(data) != manifest.sha256:
        raise CheckpointError(
            f"{folder / MANIFEST}: its parts are not in order, or one is missing. Copy all files again."
        )
    _write(out, data)
    return manifest


def _read_manifest(path: Path) -> PartsManifest:
    try:
        return PartsManifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}). Pass the folder with the results of a part of the campaign."
        ) from error
    except (ValueError, ValidationError) as error:
        raise CheckpointError(f"{path}: not the manifest of a cut checkpoint: {error}") from error


def _to_float16(tensor: Tensor) -> Any:
    if not tensor.is_floating_point() or tensor.ndim < 2:
        return tensor
    converted = tensor.half()
    return converted if bool(torch.isfinite(converted).all()) else tensor


def _write(path: Path, data: bytes) -> None:
    with replaced_when_whole(path) as temporary:
        temporary.write_bytes(data)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
