"""A gallery: embeddings of known images, searched exactly."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from reidruntime.errors import InputError
from reidruntime.threads import default_threads

from reidgallery.file import GalleryContent, read_gallery, write_gallery
from reidgallery.input import (
    ALL_ROWS,
    JUNK_PID,
    NOBODY_FORGOTTEN,
    UNLABELED,
    BaseGallery,
    Forgotten,
    LabeledRows,
    NeededLabel,
    Queries,
    RowLabels,
    SearchFilter,
    are_among,
    check_dim_and_metric,
    check_removed_pids,
    missing_labels,
)
from reidgallery.rows import (
    CodedGallery,
    Features,
    Floats64,
    GalleryRows,
    Ints,
    Metric,
    Question,
)
from reidgallery.scan.candidates import Neighbors
from reidgallery.scan.device_rows import DeviceRows
from reidgallery.scan.int8_scan import MAX_DIM, can_multiply
from reidgallery.scan.projection_scan import ProjectedRows
from reidgallery.scan.topk import Prepared, has_kernels, nearest_rows

Scan = Literal["auto", "float32", "int8"]

_LARGE_PART = 2**15  # rows
_LARGE_GALLERY, _MANY_QUERIES = 2**12, 2**9  # projecting the rows costs about what so many queries do


class Gallery(BaseGallery):
    """A gallery in memory, or mapped from a file."""

    def __init__(
        self,
        dim: int,
        *,
        metric: Metric = "cosine",
        manifest_sha256: str | None = None,
        threads: int | None = None,
        device: str | None = None,
    ) -> None:
        """An empty gallery.

        Args:
            dim: dimension of the embeddings.
            metric: how to compare them.
            manifest_sha256: ``Manifest.sha256`` of the artifact, where it is known; then nothing of another artifact
                can be added or searched for.
            threads: for searching; default: the CPUs that this process may use. During a search, NumPy's own
                products have one thread each in the whole process.
            device: ``cuda`` or ``cuda:NUMBER``, to look through the rows there by torch, where they are kept, in
                float32 and in bfloat16, as far as they fit (``cpu`` is torch's too); default: without torch. The answer
                is the same.

        Raises:
            InputError: an argument is out of its range.
            NotInstalledError: torch or a GPU for the device is missing.
        """
        check_dim_and_metric(dim, metric)
        self.dim = dim
        self.metric: Metric = metric
        self.manifest_sha256 = manifest_sha256
        self._threads = default_threads() if threads is None else threads
        if self._threads < 1:
            raise InputError(f"threads must be at least 1, got {threads}.")
        self._on_device = None if device is None else DeviceRows(device, metric)
        self._read_from: tuple[Path, str] | None = None
        self._forgotten = NOBODY_FORGOTTEN
        nobody = np.empty(0, np.int64)
        self._hold([], np.empty(0, np.float64), RowLabels(nobody, nobody, nobody, []))

    def __len__(self) -> int:
        return len(self._rows.norms)

    @property
    def parts(self) -> Sequence[Features]:
        """The embeddings: float32 arrays of shape (n, dim) whose rows follow each other; do not write to them."""
        return self._rows.parts

    @property
    def pids(self) -> Ints:
        """The person of each row, int64; -1 for junk, 0 for a distractor, ``UNLABELED`` where not known."""
        return self._labels.pids

    @property
    def camids(self) -> Ints:
        """The camera of each row, int64, from 0; ``UNLABELED`` where not known."""
        return self._labels.camids

    @property
    def times(self) -> Ints:
        """When each row was seen, int64, from 0, by the clock of whoever added it; ``UNLABELED`` where not known."""
        return self._labels.times

    @property
    def paths(self) -> Sequence[str]:
        """The path of each row; empty where not known."""
        return self._labels.paths

    def _add(self, rows: LabeledRows, norms: Floats64) -> None:
        if not len(norms):
            return  # and keep what searches made of the others
        parts, known = self._parts_with(rows.embeddings), self._labels
        known.paths.extend(rows.paths)
        labels = RowLabels(
            np.append(known.pids, rows.pids),
            np.append(known.camids, rows.camids),
            np.append(known.times, rows.times),
            known.paths,
        )
        self._hold(parts, np.append(self._rows.norms, norms), labels)

    def extend(self, other: "Gallery") -> None:
        """Append all rows of another gallery.

        Raises:
            InputError: it has another dimension, metric or artifact.
        """
        self._check_metric(other)
        for rows in other.labeled_parts():
            self.add(**rows._asdict(), manifest_sha256=other.manifest_sha256)

    def labeled_parts(self) -> Iterator[LabeledRows]:
        """All rows, in order, a part of ``parts`` at a time; one part of no rows where the gallery is empty."""
        pids, camids, times, paths = self._labels
        for part, rows in self._rows.placed_parts():
            yield LabeledRows(part, pids[rows], camids[rows], times[rows], paths[rows])

    def labels(self, rows: Ints) -> RowLabels:
        """The pids, camids, times and paths of some rows."""
        paths = [self.paths[row] for row in rows.tolist()]
        return RowLabels(self.pids[rows], self.camids[rows], self.times[rows], paths)

    def row_numbers(self) -> Ints:
        """The numbers of all rows, ascending: what :meth:`labels` and :meth:`embeddings` take."""
        return np.arange(len(self))

    def embeddings(self, rows: Ints) -> Features:
        """The embeddings of some rows.

        Returns:
            float32, shape (len(rows), dim).

        Raises:
            InputError: a row does not exist.
        """
        if bad := [row for row in rows.tolist() if not 0 <= row < len(self)]:
            raise InputError(f"The gallery has {len(self)} rows, and no row {bad[0]}.")
        return self._rows.take(rows)

    @property
    def forgotten(self) -> Forgotten:
        """Whom :meth:`forget` removed; kept in the file, too."""
        return self._forgotten

    def bring_back(self, listed: Forgotten) -> None:
        """Take persons, with their images, and paths off the list of the forgotten; their rows must be added anew."""
        self._forgotten -= listed

    def list_forgotten(self, added: Forgotten) -> None:
        """Put persons and paths on the list of the forgotten, as another gallery has it; no row is removed."""
        self._forgotten |= added

    def _paths_by_pid(self, pids: Sequence[int]) -> Iterator[tuple[int, str]]:
        rows = np.flatnonzero(np.isin(self.pids, pids)).tolist()
        return ((int(self.pids[row]), self.paths[row]) for row in rows)

    def remove(self, pids: Collection[int] = (), *, paths: Collection[str] = ()) -> int:
        """Remove persons or images: no search finds them, and the next :meth:`save` writes a file without them.

        The rows behind theirs move up.

        Args:
            pids: the persons; -1 for junk.
            paths: of the images.

        Returns:
            How many rows they had.

        Raises:
            InputError: a pid is less than -1.
        """
        kept = ~(np.isin(self.pids, check_removed_pids(pids)) | are_among(self.paths, frozenset(paths)))
        shares = [(part, kept[place]) for part, place in self._rows.placed_parts()]
        parts = [part if share.all() else part[share] for part, share in shares]
        self._hold(parts, self._rows.norms[kept], self.labels(np.flatnonzero(kept)))
        if self._on_device:
            for (part, share), packed in zip(shares, parts, strict=True):
                if 0 < len(packed) < len(part):
                    self._on_device.pack(part, share, packed)
        return len(kept) - int(np.count_nonzero(kept))

    def search(
        self,
        queries: npt.ArrayLike,
        k: int = 10,
        *,
        filter: SearchFilter = ALL_ROWS,
        pids: npt.ArrayLike | None = None,
        camids: npt.ArrayLike | None = None,
        scan: Scan = "auto",
        manifest_sha256: str | None = None,
    ) -> Neighbors:
        """Find the k nearest rows of each query: exactly, equal distances in the order of the rows.

        Args:
            queries: float32, shape (num_query, dim).
            k: how many, at least 1.
            filter: which rows they may find.
            pids: the queries' persons, for ``exclude_junk``.
            camids: the queries' cameras, for ``other_cameras`` and ``exclude_junk``.
            scan: what to look through first; the answer is the same. ``"float32"``: the rows themselves; ``"int8"``:
                7-bit copies (needs ONNX Runtime), made by the first such search, of the rows or, where a few directions
                are all that matters, of their projection onto these (at most five eighths of the rows' memory);
                ``"auto"``: the rows on the gallery's device; where it has none, the 7-bit copies of a projection (the
                projection itself without ONNX Runtime), if there is one and it exists or many queries will pay for it;
                else the rows. Without numba, on a CPU, always the rows.
            manifest_sha256: of the artifact that made the queries; None leaves the check to the caller.

        Returns:
            Indices and distances, both of shape (num_query, k); where fewer than k rows are left, the others are -1
            and infinite.

        Raises:
            InputError: an argument does not fit, or the filter needs labels that are missing.
            NotInstalledError: ONNX Runtime, which the int8 scan needs, is not installed.
        """
        checked = self._checked_queries(queries, k, filter, pids, camids, manifest_sha256)
        if scan not in get_args(Scan):
            raise InputError(f"scan must be one of {', '.join(get_args(Scan))}, got {scan!r}.")
        q_keys, g_keys = self._keys(checked, filter)
        question = Question(
            queries=checked.rows,
            q_norms=checked.norms,
            gallery=self._rows,
            k=k,
            metric=self.metric,
            allowed=self._allowed(filter),
            q_keys=q_keys,
            g_keys=g_keys,
        )
        prepared = self._prepared(scan, len(checked.rows)) if len(self) else None
        return nearest_rows(question, self._threads, prepared)

    def save(self, path: str | Path, *, if_still: str | None = None) -> None:
        """Write the gallery to ``NAME.gallery``: whatever happens, the old file or the new one is left, whole.

        Args:
            path: ``NAME.gallery``.
            if_still: what :func:`reidgallery.file.file_identity` said of the file that may be replaced; default: the
                one that the gallery was loaded from, or whatever is elsewhere.

        Raises:
            InputError: the path cannot be written; or the file is another one by now, whose rows would be lost.
        """
        target = Path(path)
        content = GalleryContent(self.metric, self.manifest_sha256, self._rows, self._labels, self._forgotten)
        place = target.resolve()
        expected = if_still
        if expected is None and self._read_from and self._read_from[0] == place:
            expected = self._read_from[1]
        self._read_from = place, write_gallery(target, content, expected)

    def _hold(self, parts: Sequence[Features], norms: Floats64, labels: RowLabels) -> None:
        """Have these rows from now on; what a search made of others is let go."""
        filled = [part for part in parts if len(part)]
        self._rows = GalleryRows(filled or [np.empty((0, self.dim), np.float32)], norms)
        self._labels = labels
        self._coded: CodedGallery | None = None
        self._projected: ProjectedRows | None = None
        self._is_projected = False

    def _parts_with(self, rows: Features) -> list[Features]:
        """The parts and another; small ones are joined, so that many short calls leave few parts and copy little.

        A part that is mapped from a file cannot be written to, and stays as it is.
        """
        parts, joined = list(self.parts), [rows]
        while (
            parts and parts[-1].flags.writeable and len(parts[-1]) <= min(sum(map(len, joined)), _LARGE_PART)
        ):
            joined.insert(0, parts.pop())
        return [*parts, np.concatenate(joined)]

    def _prepared(self, scan: Scan, num_query: int) -> Prepared | None:
        if scan == "auto" and self._on_device is not None:
            return self._on_device
        if scan == "float32" or not has_kernels():
            return None
        is_worth_it = self._is_projected or (num_query >= _MANY_QUERIES and len(self) >= _LARGE_GALLERY)
        if scan == "auto" and not is_worth_it:
            return None
        if scan == "int8" and self.dim > MAX_DIM:
            raise InputError(f"The int8 scan takes up to {MAX_DIM} dimensions, the gallery has {self.dim}.")
        if not self._is_projected:
            self._projected, self._is_projected = self._rows.projected(self._threads), True
        if scan == "auto" and not (self._projected and can_multiply()):
            return self._projected
        if self._coded is None:
            self._coded = self._rows.coded(self._projected)
        return self._coded

    def _allowed(self, filter: SearchFilter) -> npt.NDArray[np.bool_]:
        """The rows that any query may find."""
        allowed = np.ones(len(self), np.bool_)
        if filter.exclude_junk:
            allowed &= self.pids != JUNK_PID
        if filter.among_camids is not None:
            allowed &= np.isin(self.camids, list(filter.among_camids))
        if filter.since is not None:
            allowed &= self.times >= filter.since
        if filter.until is not None:
            allowed &= self.times <= filter.until
        return allowed

    def _keys(self, queries: Queries, filter: SearchFilter) -> tuple[Ints, Ints]:
        """Numbers that are equal where a query may not find a row; without a filter no two are."""
        if filter.other_cameras:
            return queries.camids, self.camids
        if filter.exclude_junk:
            return _pair_keys(queries.pids, queries.camids, self.pids, self.camids)
        return np.full(len(queries.rows), -1, np.int64), np.zeros(len(self), np.int64)

    def _check_needed_label(self, needed: NeededLabel) -> None:
        is_missing = getattr(self._labels, f"{needed.name}s") == UNLABELED
        rows = np.flatnonzero(is_missing & (self.pids > 0) if needed.of_persons else is_missing)
        if len(rows):
            raise missing_labels(needed, len(rows), len(self), int(rows[0]), self.paths[rows[0]])


def load_gallery(
    path: str | Path, *, verify: bool = True, threads: int | None = None, device: str | None = None
) -> Gallery:
    """Open what :meth:`Gallery.save` wrote; the embeddings stay on the disk, mapped into memory.

    Args:
        path: the file.
        verify: compare the checksum of the embeddings too, which reads them once; labels and header are always
            checked.
        threads: as for :class:`Gallery`, and
        device: likewise.

    Raises:
        InputError: the file is missing, not a gallery, or damaged.
    """
    content, identity = read_gallery(Path(path), verify=verify)
    gallery = Gallery(
        content.rows.parts[0].shape[1],
        metric=content.metric,
        manifest_sha256=content.manifest_sha256,
        threads=threads,
        device=device,
    )
    gallery._hold(*content.rows, content.labels)
    gallery._forgotten = content.forgotten
    gallery._read_from = Path(path).resolve(), identity
    return gallery


def _pair_keys(q_pids: Ints, q_camids: Ints, g_pids: Ints, g_camids: Ints) -> tuple[Ints, Ints]:
    """One number for each pair of a pid and a camid."""
    _, persons = np.unique(np.concatenate([q_pids, g_pids]), return_inverse=True)
    cameras, seen_by = np.unique(np.concatenate([q_camids, g_camids]), return_inverse=True)
    keys = persons * len(cameras) + seen_by
    return keys[: len(q_pids)], keys[len(q_pids) :]
