"""Do two networks answer alike? What can be compared, how far rows of features are apart, whose neighbors they have."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from reidgallery import Gallery, SearchFilter
from reidgallery.rows import EMBEDDING_NORMS
from reidruntime.artifact.manifest import Manifest, Metric

from reidexport.errors import InputError

Features = npt.NDArray[np.floating[Any]]
Float64s = npt.NDArray[np.float64]

_TOP_K = 10
_ROWS_AT_ONCE = 1024


class Agreement(NamedTuple):
    """How far each of N rows is from the one it should be, in float64.

    Attributes:
        cosines: (N,), 0 where either row is of zeros, -1 where either is not finite.
        max_abs_errors: (N,), the largest of any component.
        relative_l2: (N,), the norm of the difference over that of the expected row. This and the one above are infinite
            where either row is not finite; this also where the expected row is of zeros and the other is not.
    """

    cosines: Float64s
    max_abs_errors: Float64s
    relative_l2: Float64s


def agreement(found: Features, expected: Features) -> Agreement:
    """Compare features (N, D) with those that they should be, row by row."""
    rows = np.empty((3, len(found)))
    for start in range(0, len(found), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        rows[:, some] = _agreement(found[some], expected[some])
    return Agreement(*rows)


@np.errstate(invalid="ignore", over="ignore")
def _agreement(found: Features, expected: Features) -> Agreement:
    a, b = found.astype(np.float64), expected.astype(np.float64)
    norm_a, norm_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    finite = np.isfinite(norm_a) & np.isfinite(norm_b)
    difference = a - b
    lost = np.linalg.norm(difference, axis=1)
    relative = np.where(finite & (lost == 0), 0.0, np.inf)
    np.divide(lost, norm_b, out=relative, where=finite & (norm_b > 0))
    cosines = (a * b).sum(1) / np.maximum(norm_a * norm_b, np.finfo(np.float64).tiny)
    return Agreement(
        np.where(finite, cosines, -1.0), np.where(finite, np.abs(difference).max(1), np.inf), relative
    )


def check_comparable(name: str, manifest: Manifest, reference: Manifest) -> None:
    """Check that an artifact emits what its reference does; whether that is f_i or f_t, a foreign file does not say.

    Raises:
        InputError: its features are of another kind or have another number of values; ``name`` is in the message.
    """
    is_foreign = "foreign" in (manifest.architecture.family, reference.architecture.family)
    for what in ("normalized", "flip") if is_foreign else ("feature", "normalized", "flip"):
        found, expected = getattr(manifest, what), getattr(reference, what)
        if found != expected:
            raise InputError(f"{name} is not comparable: its {what} is {found}, the reference's {expected}.")
    found, expected = manifest.architecture.feature_dim, reference.architecture.feature_dim
    if found != expected:
        raise InputError(
            f"{name} is not comparable: its features have {found} values (output {manifest.output.name!r}), the "
            f"reference's {expected}."
        )


def neighbor_agreement(
    found: Features,
    expected: Features,
    num_queries: int | None,
    metric: Metric,
    image_numbers: npt.NDArray[np.int64] | None = None,
) -> tuple[float, float]:
    """The share of queries whose nearest neighbor is the same, and the mean overlap of their ten nearest.

    Args:
        found: (N, D), the queries first.
        expected: the same images' features as they should be.
        num_queries: how many of the rows are queries; None: every row is one, among all others.
        metric: ``cosine`` or ``euclidean``.
        image_numbers: (N,), equal for rows of one image, where a query may lie in the gallery: no query is its own
            neighbor.
    """
    a, b = (_neighbors(rows, num_queries, metric, image_numbers) for rows in (found, expected))
    overlaps = [len(np.intersect1d(*rows)) / len(rows[0]) for rows in zip(a, b, strict=True)]
    return float((a[:, 0] == b[:, 0]).mean()), float(np.mean(overlaps))


def _neighbors(
    features: Features, num_queries: int | None, metric: Metric, image_numbers: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.int64]:
    """The nearest rows of each query; what is not an embedding counts as zeros."""
    norms = np.linalg.norm(features.astype(np.float64), axis=1)
    smallest, largest = EMBEDDING_NORMS
    is_embedding = (norms >= smallest) & (norms <= largest)
    rows = np.where(is_embedding[:, None], features, 0).astype(np.float32)
    gallery = Gallery(rows.shape[1], metric=metric)
    queries, start = rows[:num_queries], num_queries or 0
    numbers = np.arange(len(rows)) if num_queries is None else image_numbers
    if numbers is None:
        gallery.add(rows[start:])
        return gallery.search(queries, min(_TOP_K, len(gallery))).indices
    # A camera for each image, so that none finds itself.
    gallery.add(rows[start:], camids=numbers[start:])
    k = min(_TOP_K, len(gallery) - (num_queries is None))
    others = SearchFilter(other_cameras=True)
    return gallery.search(queries, k, filter=others, camids=numbers[:num_queries]).indices
