"""What a search goes through: gallery rows in blocks, and which of them a query may find."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from reidruntime.errors import InputError

from reidgallery.scan.int8_scan import GALLERY_LIMIT, code_rows
from reidgallery.scan.projection_scan import NUM_SAMPLED, ProjectedRows, principal_basis, project

Metric = Literal["cosine", "euclidean"]
Features = NDArray[np.float32]
Floats64 = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCK_ROWS = 2048
_ROWS_AT_ONCE = 256  # in float64, in memory that stays in the caches
_LENGTHS = (1e-12, 1e12)  # products of such rows neither overflow nor vanish in float32


class CodedBlock(NamedTuple):
    """A block of gallery rows for the int8 scan.

    Attributes:
        columns: int8, (D, n): the codes, transposed.
        steps: float64, (n,): what a code of 1 stands for.
        rests: float64, (n,): the length of what the codes leave out.
    """

    columns: NDArray[np.int8]
    steps: Floats64
    rests: Floats64


class CodedGallery(NamedTuple):
    """A gallery for the int8 scan.

    Attributes:
        blocks: codes of its rows, in order.
        projected: the rows of which they are the codes; None where they are those of the gallery's own.
    """

    blocks: list[CodedBlock]
    projected: ProjectedRows | None


class GalleryRows(NamedTuple):
    """N rows of dimension D.

    Attributes:
        parts: float32 arrays of shape (n, D) whose rows, one after the other, are the gallery's.
        lengths: float64, (N,): Euclidean lengths of the rows.
    """

    parts: Sequence[Features]
    lengths: Floats64

    def blocks(self) -> Iterator[Features]:
        """At most ``BLOCK_ROWS`` rows at a time, in order."""
        for part in self.parts:
            for start in range(0, len(part), BLOCK_ROWS):
                yield part[start : start + BLOCK_ROWS]

    def coded(self, projected: ProjectedRows | None) -> CodedGallery:
        """The same blocks, or those of the projected rows, in 7-bit integers: a quarter of the memory."""
        rows = GalleryRows([projected.rows], self.lengths) if projected else self
        blocks = []
        for block in rows.blocks():
            coded = code_rows(block, GALLERY_LIMIT)
            blocks.append(CodedBlock(np.ascontiguousarray(coded.codes.T), coded.steps, coded.rests))
        return CodedGallery(blocks, projected)

    def projected(self, threads: int) -> ProjectedRows | None:
        """The rows in the few directions that matter; None where there are no such."""
        sampled = np.linspace(0, len(self.lengths) - 1, min(NUM_SAMPLED, len(self.lengths))).astype(np.int64)
        sampled = sampled[self.lengths[sampled] > 0]
        ends = np.cumsum([0, *map(len, self.parts)])
        sample = []
        for part, (start, stop) in zip(self.parts, pairwise(ends), strict=True):
            here = sampled[(sampled >= start) & (sampled < stop)]
            sample.append(part[here - start] / self.lengths[here, None].astype(np.float32))
        basis = principal_basis(np.concatenate(sample))
        if basis is None:
            return None
        parts = [
            project(part, self.lengths[start:stop], basis, threads)
            for part, (start, stop) in zip(self.parts, pairwise(ends), strict=True)
        ]
        return ProjectedRows(
            basis,
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.rests for part in parts]),
        )


class Question(NamedTuple):
    """What is asked of a gallery.

    Attributes:
        queries: float32, (num_query, D).
        q_lengths: float64, (num_query,): their lengths, from :func:`row_lengths`.
        gallery: the rows.
        k: how many rows to find for each query, at least 1.
        metric: how to compare.
        allowed: bool, (N,): rows that any query may find.
        q_keys: int64, (num_query,), and
        g_keys: int64, (N,): a query does not find the rows whose key is its own.
    """

    queries: Features
    q_lengths: Floats64
    gallery: GalleryRows
    k: int
    metric: Metric
    allowed: NDArray[np.bool_]
    q_keys: Ints
    g_keys: Ints

    def of(self, queries: slice | Ints) -> "Question":
        """The same for some of the queries."""
        return self._replace(
            queries=self.queries[queries], q_lengths=self.q_lengths[queries], q_keys=self.q_keys[queries]
        )

    def rows_for(self, query: int) -> Ints:
        """All the rows that one query may find, in order."""
        return np.flatnonzero(self.allowed & (self.g_keys != self.q_keys[query]))


def row_lengths(rows: Features, name: str) -> Floats64:
    """Euclidean lengths, in float64.

    Raises:
        InputError: a row holds NaN or infinity, or is too long or too short to be an embedding.
    """
    lengths = np.empty(len(rows))
    with np.errstate(invalid="ignore"):
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            block = rows[start : start + _ROWS_AT_ONCE].astype(np.float64)
            lengths[start : start + len(block)] = np.sqrt(np.einsum("nd,nd->n", block, block))
    shortest, longest = _LENGTHS
    bad = np.flatnonzero(~((lengths == 0) | ((lengths >= shortest) & (lengths <= longest))))
    if len(bad):
        raise InputError(
            f"{name}: row {bad[0]} is no embedding: its length is {lengths[bad[0]]:.3g}, expected 0 or between "
            f"{shortest:g} and {longest:g}. Embed that image again."
        )
    return lengths
