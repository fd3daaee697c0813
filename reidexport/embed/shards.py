"""The finished part of a long embedding run, kept on disk until the whole is written.

``NAME.partial/`` holds ``run.json`` (what is being embedded, with what) and one ``.npz`` a shard, each whole or
missing: a run that dies loses at most the shard that it was filling.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidexport.errors import InputError
from reidexport.files import replaced_when_whole


class FinishedShard(NamedTuple):
    """Answers for the images from ``start`` to ``stop`` of a run's list.

    ``positions`` (n,) and ``embeddings`` (n, D) are of the good images; ``bad_positions`` and ``reasons`` of
    the others.
    """

    start: int
    stop: int
    positions: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    bad_positions: NDArray[np.int64]
    reasons: NDArray[np.str_]


def partial_folder(output: Path) -> Path:
    """The folder of an output file's shards: ``NAME.partial`` beside it."""
    return output.with_name(output.name + ".partial")


def start_run(output: Path, paths: Sequence[str], manifest_sha256: str, resume: bool) -> int:
    """Make the folder of shards, or find the one of an interrupted run.

    Returns:
        How many of ``paths`` are finished.

    Raises:
        InputError: an interrupted run exists and ``resume`` is false, or it was of other images or of
            another artifact; or the folder cannot be made.
    """
    folder = partial_folder(output)
    run: dict[str, str | int] = {
        "manifest_sha256": manifest_sha256,
        "paths_sha256": _sha256_of(paths),
        "num_images": len(paths),
    }
    if not folder.exists():
        try:
            folder.mkdir()
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be created ({error.strerror}). Choose another path."
            ) from error
        with replaced_when_whole(folder / "run.json") as temporary:
            temporary.write_text(json.dumps(run))
        return 0
    if not resume:
        raise InputError(
            f"{folder}: holds an interrupted run. Continue it with --resume, or delete the folder."
        )
    _check_same_run(folder, run)
    return max((int(path.stem.split("-")[2]) for path in _shard_files(folder)), default=0)


def write_shard(output: Path, shard: FinishedShard) -> None:
    """Put a finished shard on the disk."""
    arrays = shard._asdict()
    name = f"shard-{arrays.pop('start'):09d}-{arrays.pop('stop'):09d}.npz"
    with replaced_when_whole(partial_folder(output) / name) as temporary:
        np.savez(temporary, **arrays)


def read_shards(output: Path) -> Iterator[FinishedShard]:
    """The finished shards in order, one in memory at a time."""
    for path in _shard_files(partial_folder(output)):
        _, start, stop = path.stem.split("-")
        with np.load(path) as arrays:
            yield FinishedShard(int(start), int(stop), **arrays)


def remove_shards(output: Path) -> None:
    """Delete the folder of shards."""
    shutil.rmtree(partial_folder(output))


def _shard_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*.npz"))


def _check_same_run(folder: Path, run: dict[str, str | int]) -> None:
    try:
        before = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: not the folder of an interrupted run ({error}). Delete it.") from error
    if not isinstance(before, dict) or before.keys() != run.keys():
        raise InputError(f"{folder}: run.json does not describe an interrupted run. Delete the folder.")
    if before["manifest_sha256"] != run["manifest_sha256"]:
        raise InputError(
            f"{folder}: the interrupted run used another artifact (manifest "
            f"{str(before['manifest_sha256'])[:12]}, now {str(run['manifest_sha256'])[:12]}). "
            "Use that artifact, or delete the folder."
        )
    if before != run:
        raise InputError(
            f"{folder}: the interrupted run was of other images ({before['num_images']}, now "
            f"{run['num_images']}). Pass the same paths, or delete the folder."
        )


def _sha256_of(paths: Sequence[str]) -> str:
    return hashlib.sha256(b"\0".join(os.fsencode(path) for path in paths)).hexdigest()
