"""A table beside the images, CSV or Parquet, of what their names do not tell: persons, cameras and times."""

import csv
import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from reidgallery.input import JUNK_PID, UNLABELED

from reidexport.data.name_labels import labels_from_names
from reidexport.data.times import parse_time
from reidexport.errors import InputError

_LABELS = ("person", "camera", "time")
_LOWEST = {"person": JUNK_PID, "camera": 1}
_NUMBER = re.compile(r"-?\d{1,18}")
_ZERO_FRACTION = re.compile(r"(?<=\d)\.0+$")  # data frames write whole numbers beside empty cells as 7.0
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class LabelFile:
    """What a table says of images.

    Attributes:
        path: of the table.
        images: the column ``path``: relative to the table's folder, absolute, or as the image is called elsewhere.
        labels: int64, (3, N): persons, cameras (from 0) and times, ``UNLABELED`` in empty cells.
        unread: columns that are none of ``path``, ``person``, ``camera`` and ``time``.
        row_of: the row of each path, as it is written and absolute.
    """

    path: Path
    images: list[str]
    labels: Labels
    unread: list[str]
    row_of: dict[str, int]

    @property
    def cameras_sha256(self) -> str:
        """Of the cameras that it tells, and of which images."""
        cameras = zip(self.images, self.labels[1].tolist(), strict=True)
        return hashlib.sha256(json.dumps(list(cameras)).encode()).hexdigest()

    def labels_of(self, paths: Sequence[str], otherwise: Labels | None = None) -> Labels:
        """The labels of N images: int64, (3, N).

        Args:
            paths: of the images.
            otherwise: (3, N), for what the table does not say; default: what the names tell.

        Raises:
            InputError: two rows mean one image.
        """
        labels = labels_from_names(paths) if otherwise is None else otherwise.copy()
        for column, path in enumerate(paths):
            row = self._row(path)
            if row is not None:
                told = self.labels[:, row]
                labels[:, column] = np.where(told == UNLABELED, labels[:, column], told)
        return labels

    def notes(self, paths: Sequence[str]) -> list[str]:
        """What to tell whoever labels these images: how many have no row, and what else does not fit.

        Raises:
            InputError: no row is about any of them.
        """
        rows = [self._row(path) for path in paths]
        used = {row for row in rows if row is not None}
        if paths and not used:
            example = f"; its first path means {_absolute(self.path, self.images[0])}" if self.images else ""
            raise InputError(
                f"{self.path}: no row is about one of the {len(paths)} images, the first of which is {paths[0]}"
                f"{example}. Write paths relative to the folder of the table, absolute, or as the images are passed."
            )
        bare = [path for path, row in zip(paths, rows, strict=True) if row is None]
        unused = [image for row, image in enumerate(self.images) if row not in used]
        named, told = labels_from_names(paths), self.labels_of(paths)
        others = np.flatnonzero(((named != told) & (named != UNLABELED)).any(axis=0))
        notes = [f"{self.path}: the columns {', '.join(self.unread)} are not read."] if self.unread else []
        if bare:
            notes.append(
                f"{self.path}: {len(bare)} of {len(paths)} images have no row there, the first {bare[0]}; only what "
                "their names tell is known."
            )
        if unused:
            notes.append(
                f"{self.path}: {len(unused)} rows are about none of the images, the first {unused[0]}."
            )
        if len(others):
            notes.append(
                f"{self.path}: the labels of {len(others)} images are others than their names tell, the first "
                f"{paths[others[0]]}; those of the table are used."
            )
        return notes

    def _row(self, path: str) -> int | None:
        as_written, absolute = self.row_of.get(path), self.row_of.get(os.path.abspath(path))  # noqa: PTH100
        if as_written is None or as_written == absolute:
            return absolute
        if _are_two_files(_absolute(self.path, self.images[as_written]), path):
            return absolute  # the row is about an image that is only called the same
        if absolute is not None:
            raise InputError(
                f"{self.path}: rows {as_written + 1} and {absolute + 1} both mean {path}. Write absolute paths."
            )
        return as_written


def read_label_file(path: Path) -> LabelFile:
    """Read a table with the column ``path`` and some of ``person`` (from -1), ``camera`` (from 1) and ``time``.

    Times are numbers or dates, as :func:`reidexport.data.times.parse_time` takes them. Empty cells say nothing.

    Raises:
        InputError: it is missing, not CSV or Parquet, lacks a column, says two things of one image, or a cell is not
            what its column holds.
    """
    columns = _columns_of(path)
    known = [name for name in _LABELS if name in columns]
    if "path" not in columns or not known:
        raise InputError(
            f"{path}: expected the column path and one or more of {', '.join(_LABELS)}, found "
            f"{', '.join(columns) or 'none'}. Rename the columns."
        )
    images = list(map(_text, columns["path"]))
    labels = np.full((3, len(images)), UNLABELED, np.int64)
    for name in known:
        cells = map(_text, columns[name])
        labels[_LABELS.index(name)] = [
            _label(cell, name, f"{path}: row {n}") for n, cell in enumerate(cells, 1)
        ]
    row_of: dict[str, int] = {}
    for row, image in enumerate(images):
        if not image:
            raise InputError(f"{path}: row {row + 1} has no path. Fill it in, or remove the row.")
        for key in {image, _absolute(path, image)}:
            if key in row_of:
                raise InputError(
                    f"{path}: rows {row_of[key] + 1} and {row + 1} are both about {image}. Remove one of them."
                )
        row_of |= dict.fromkeys((image, _absolute(path, image)), row)
    unread = [name for name in columns if name not in ("path", *_LABELS)]
    return LabelFile(path, images, labels, unread, row_of)


def _columns_of(path: Path) -> dict[str, Sequence[Any]]:
    try:
        if path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            try:
                _check_names(path, pq.read_schema(path).names)
                table = pq.read_table(path)
            except pa.ArrowException as error:
                raise InputError(f"{path}: not a Parquet file, or damaged ({error}).") from error
            return {name: table[name].to_pylist() for name in table.column_names}
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                return _csv_columns(path, csv.reader(file, strict=True))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error}).") from error
    raise InputError(f"{path}: expected a name that ends in .csv or .parquet.")


def _csv_columns(path: Path, lines: Iterable[list[str]]) -> dict[str, Sequence[Any]]:
    header, *rows = [line for line in lines if line] or [[]]
    names = [name.strip() for name in header]
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise InputError(
                f"{path}: row {number} has {len(row)} cells, expected {len(names)} as in the header."
            )
    _check_names(path, names)
    return {name: [row[index] for row in rows] for index, name in enumerate(names)}


def _check_names(path: Path, names: Sequence[str]) -> None:
    counts = Counter(names)
    twice = [name for name in ("path", *_LABELS) if counts[name] > 1]
    if twice:
        raise InputError(f"{path}: more than one column is called {twice[0]!r}. Rename or remove the others.")


def _text(cell: object) -> str:
    """A cell as text; whole numbers among floats, as data frames have them beside empty cells, are numbers."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def _label(cell: str, name: str, where: str) -> int:
    if not cell:
        return UNLABELED
    number = _ZERO_FRACTION.sub("", cell)
    if name == "time":
        time = parse_time(number, f"{where}: time")
        if not 0 <= time < 2**63:
            raise InputError(f"{where}: time {cell!r}: expected 1970 or later.")
        return time
    if not _NUMBER.fullmatch(number) or int(number) < _LOWEST[name]:
        raise InputError(
            f"{where}: {name} {cell!r}: expected a whole number from {_LOWEST[name]}, or nothing."
        )
    return int(number) - (name == "camera")


def _absolute(table: Path, image: str) -> str:
    return os.path.abspath(table.parent / image)  # noqa: PTH100 - resolve() would follow links


def _are_two_files(one: str, other: str) -> bool:
    """Whether both exist, and are not the same."""
    try:
        return not Path(one).samefile(other)
    except OSError:
        return False
