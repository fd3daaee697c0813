"""What a search goes through: gallery rows in blocks, and which of them a query may find."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from reidruntime.errors import InputError

from reidgallery.scan.int8_scan import GALLERY_LIMIT, CodedRows, code_rows
from reidgallery.scan.projection_scan import NUM_SAMPLED, ProjectedRows, principal_basis, project

Metric = Literal["cosine", "euclidean"]
Features = NDArray[np.float32]
Floats64 = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCK_ROWS = 2048
_ROWS_AT_ONCE = 256  # in float64, in memory that stays in the caches
EMBEDDING_NORMS = (1e-12, 1e12)  # products of such rows neither overflow nor vanish in float32


class CodedGallery(NamedTuple):
    """A gallery for the int8 scan.

    Attributes:
        blocks: its rows in order, some at a time, their codes transposed: (D, n).
        projected: the rows of which they are the codes; None where they are those of the gallery's own.
    """

    blocks: list[CodedRows]
    projected: ProjectedRows | None


class GalleryRows(NamedTuple):
    """N rows of dimension D.

    Attributes:
        parts: float32 arrays of shape (n, D) whose rows, one after the other, are the gallery's; one at least.
        norms: float64, (N,): Euclidean norms of the rows.
    """

    parts: Sequence[Features]
    norms: Floats64

    def blocks(self) -> Iterator[Features]:
        """At most ``BLOCK_ROWS`` rows at a time, in order."""
        for part in self.parts:
            for start in range(0, len(part), BLOCK_ROWS):
                yield part[start : start + BLOCK_ROWS]

    def placed_parts(self) -> list[tuple[Features, slice]]:
        """Each part, and where its rows are among all."""
        ends = np.cumsum([0, *map(len, self.parts)]).tolist()
        return list(zip(self.parts, map(slice, ends, ends[1:]), strict=False))

    def take(self, numbers: Ints) -> Features:
        """The rows of these numbers, in this order."""
        taken = np.empty((len(numbers), self.parts[0].shape[1]), np.float32)
        for part, place in self.placed_parts():
            is_here = (numbers >= place.start) & (numbers < place.stop)
            taken[is_here] = part[numbers[is_here] - place.start]
        return taken

    def coded(self, projected: ProjectedRows | None) -> CodedGallery:
        """The same blocks, or those of the projected rows, in 7-bit integers: a quarter of the memory."""
        rows = GalleryRows([projected.rows], self.norms) if projected else self
        blocks = []
        for block in rows.blocks():
            coded = code_rows(block, GALLERY_LIMIT)
            blocks.append(coded._replace(codes=np.ascontiguousarray(coded.codes.T)))
        return CodedGallery(blocks, projected)

    def projected(self, threads: int) -> ProjectedRows | None:
        """The rows along the few directions that matter; None where there are none."""
        sampled = np.linspace(0, len(self.norms) - 1, min(NUM_SAMPLED, len(self.norms))).astype(np.int64)
        sampled = sampled[self.norms[sampled] > 0]
        sample = self.take(sampled)
        sample /= self.norms[sampled, None].astype(np.float32)
        basis = principal_basis(sample)
        if basis is None:
            return None
        parts = [project(part, self.norms[place], basis, threads) for part, place in self.placed_parts()]
        _, rows, residuals = zip(*parts, strict=True)
        return ProjectedRows(basis, np.concatenate(rows), np.concatenate(residuals))


class Question(NamedTuple):
    """Queries, the rows to search, and which of these each may find.

    Attributes:
        queries: float32, (num_query, D).
        q_norms: float64, (num_query,): their norms, from :func:`row_norms`.
        gallery: the rows.
        k: how many rows to find for each query, at least 1.
        metric: how to compare.
        allowed: bool, (N,): rows that any query may find.
        q_keys: int64, (num_query,), and
        g_keys: int64, (N,): a query does not find the rows whose key is its own.
    """

    queries: Features
    q_norms: Floats64
    gallery: GalleryRows
    k: int
    metric: Metric
    allowed: NDArray[np.bool_]
    q_keys: Ints
    g_keys: Ints

    def of(self, queries: slice | Ints) -> "Question":
        """The same for some of the queries."""
        return self._replace(
            queries=self.queries[queries], q_norms=self.q_norms[queries], q_keys=self.q_keys[queries]
        )

    def rows_for(self, query: int) -> Ints:
        """All the rows that one query may find, in order."""
        return np.flatnonzero(self.allowed & (self.g_keys != self.q_keys[query]))


def fault_of_row(row: Features, metric: Metric) -> str | None:
    """Why a network's answer (D,) is not an embedding, in words that follow the image's name; None where it is one.

    A row of zeros has no direction, so cosine cannot compare it; for the Euclidean distance it is a point like others.
    """
    norm = float(np.linalg.norm(row.astype(np.float64)))
    smallest, largest = EMBEDDING_NORMS
    if not np.isfinite(norm):
        return "the network answers with NaN or infinity"
    if norm == 0 and metric == "cosine":
        return "the network answers with zeros only, which cosine cannot compare"
    if norm and not smallest <= norm <= largest:
        return f"the network answers with a norm of {norm:.3g}, expected {smallest:g} to {largest:g}"
    return None


def row_norms(rows: Features, name: str, paths: Sequence[str] | None = None) -> Floats64:
    """Euclidean norms, in float64; raises InputError for NaN, infinity and norms outside of ``EMBEDDING_NORMS``."""
    norms = np.empty(len(rows))
    with np.errstate(invalid="ignore"):
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            block = rows[start : start + _ROWS_AT_ONCE].astype(np.float64)
            norms[start : start + len(block)] = np.sqrt(np.einsum("nd,nd->n", block, block))
    smallest, largest = EMBEDDING_NORMS
    bad = np.flatnonzero(~((norms == 0) | ((norms >= smallest) & (norms <= largest))))
    if len(bad):
        path = "".join(f" ({path})" for path in (paths or ())[bad[0] : bad[0] + 1] if path)
        raise InputError(
            f"{name}: row {bad[0]}{path} is not an embedding: its norm is {norms[bad[0]]:.3g}, expected 0 or between "
            f"{smallest:g} and {largest:g}. Embed that image again."
        )
    return norms
