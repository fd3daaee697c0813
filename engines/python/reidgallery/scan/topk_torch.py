"""The scans of :mod:`reidgallery.scan.topk_scan` on a GPU, or wherever torch computes; torch is imported on demand.

Tiles of scores, queries by rows, are computed, masked and cut down to the best of each query where the rows are; only
these come back. What then decides is what decides on a CPU: a bound on the error, and distances in float64. The first
scan multiplies in bfloat16 and rescores what it keeps in float32. Queries with too many rows that near are scanned
in float32, and more is kept.

The bound of the bfloat16 scan. With q and g a query and a row times their scales, q' and g' these in bfloat16::

    |q.g - q'.g'| = |(q - q').g + q'.(g - g')| <= |q - q'| |g| + |q'| |g - g'|

by Cauchy and Schwarz. The norms of the differences are measured. (Rounding to nearest leaves at most ``2**-8`` of
each component, so they are at most ``2**-8`` of |q| and |g|, and mostly less than half of that.) Products of two
bfloat16 numbers are exact in float32. Tensor cores add several of them and the sum so far at once, aligned to the
largest and cut off after no less than 24 bits, so that each loses less than ``2**-23`` of the largest, and the new sum
as much again. None of these exceeds the sum of the absolute values of all terms, which is at most |q'| |g'|. With two
or more terms at a time, D terms lose less than ``D * 2**-22 * |q'| |g'|``, however they are split; with one at a time,
rounded to nearest, less than a quarter of it. No sum on the way may be rounded to bfloat16, which
:func:`reidruntime.torch_settings.exact_float32` sees to.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from reidruntime.errors import GpuError
from reidruntime.torch_settings import exact_float32

from reidgallery.rows import Question
from reidgallery.scan.candidates import Candidates
from reidgallery.scan.device_rows import DeviceBlock, DeviceRows
from reidgallery.scan.scoring import float32_errors, query_scales

_TILE_SCORES = 2**28  # at once, in float32: 1 GiB
_GROUP = 32  # columns of a tile of which first only the greatest score is looked at
_SPARE, _WIDE_SPARE = 64, 1024  # scores kept beyond those wanted, of rows that rounding can misplace
_RESCORE_BYTES = 2**28  # of rows that are rescored at once


class _Uploaded(NamedTuple):
    """A question on the device.

    Attributes:
        queries: float32, (num_query, D): times their scales.
        q_norms: float64, (num_query,): the norms of these.
        largest: the greatest norm of a gallery row times its scale.
        errors: float64, (num_query,): how far a float32 score can be from the truth.
        forbidden: bool, (N,): rows that no query may find; None where there are none.
        keys: int64, (num_query, 1) and (N,): equal where a query may not find a row; None where none are.
    """

    queries: Any
    q_norms: Any
    largest: float
    errors: Any
    forbidden: Any | None
    keys: tuple[Any, Any] | None


class _Best(NamedTuple):
    """The best scores of each query, falling, and their rows: float32 and int64, (num_query, kept)."""

    scores: Any
    rows: Any


def bfloat16_candidates(question: Question, rows: DeviceRows) -> Candidates:
    """As :func:`reidgallery.scan.topk_scan.float32_candidates`, scanned in bfloat16 and rescored in float32.

    Raises:
        GpuError: rows or tiles do not fit into the GPU's memory.
    """
    return _candidates(question, rows, 2 * question.k + _SPARE, in_bfloat16=True)


def wide_candidates(question: Question, rows: DeviceRows) -> Candidates:
    """The same in float32, for queries that have up to ``_WIDE_SPARE`` rows as near as the k-th; raises likewise."""
    return _candidates(question, rows, question.k + _WIDE_SPARE, in_bfloat16=False)


def _candidates(question: Question, rows: DeviceRows, width: int, *, in_bfloat16: bool) -> Candidates:
    try:
        with rows.torch.inference_mode(), exact_float32():
            blocks, uploaded = rows.blocks(question.gallery), _upload(question, rows)
            if not in_bfloat16:
                best = _best(rows, blocks, uploaded, uploaded.queries, width)
                return _candidates_among(question, uploaded, best, best, uploaded.errors)
            queries, residuals = rows.rounded(uploaded.queries.clone())
            best = _best(rows, blocks, uploaded, queries, width)
            errors = _bfloat16_errors(uploaded, residuals.double(), max(block.residual for block in blocks))
            rescored = _rescored(rows, blocks, uploaded, best)
            return _candidates_among(question, uploaded, best, rescored, errors)
    except rows.torch.OutOfMemoryError as error:
        raise GpuError(
            f"The search does not fit into the memory of {rows.device}: {error}. Ask fewer queries at once."
        ) from error


def _upload(question: Question, rows: DeviceRows) -> _Uploaded:
    def on_device(array: Any) -> Any:
        return rows.torch.tensor(array, device=rows.device)

    q_scales, largest = query_scales(question)
    # Without a filter, the keys of queries are less than all others.
    has_keys = question.q_keys.max() >= question.g_keys.min()
    return _Uploaded(
        queries=on_device(question.queries).mul_(on_device(q_scales.astype(np.float32))[:, None]),
        q_norms=on_device(question.q_norms * q_scales),
        largest=largest,
        errors=on_device(float32_errors(question)),
        forbidden=None if question.allowed.all() else on_device(~question.allowed),
        keys=(on_device(question.q_keys[:, None]), on_device(question.g_keys)) if has_keys else None,
    )


def _bfloat16_errors(uploaded: _Uploaded, q_residuals: Any, g_residual: float) -> Any:
    """How far the scores of a bfloat16 scan can be from the truth; float64, (num_query,)."""
    # Of the rounded ones, at most.
    q_norms, largest = uploaded.q_norms + q_residuals, uploaded.largest + g_residual
    summing = 2.0**-22 * uploaded.queries.shape[1] * q_norms * largest
    return q_residuals * uploaded.largest + q_norms * g_residual + summing + uploaded.errors


def _best(
    rows: DeviceRows, blocks: list[DeviceBlock], uploaded: _Uploaded, queries: Any, width: int
) -> _Best:
    """The best scores by products of these queries, in float32 or bfloat16, and of the rows in the same."""
    torch = rows.torch
    best = _Best(
        torch.empty((len(queries), 0), device=rows.device),
        torch.empty((len(queries), 0), dtype=torch.int64, device=rows.device),
    )
    for first, scores in _tiles(rows, blocks, uploaded, queries):
        some, columns = _highest(torch, scores, width)
        scores, numbers = torch.cat([best.scores, some], 1), torch.cat([best.rows, columns + first], 1)
        scores, order = scores.topk(min(width, scores.shape[1]))
        best = _Best(scores, numbers.gather(1, order))
    return best


def _tiles(
    rows: DeviceRows, blocks: list[DeviceBlock], uploaded: _Uploaded, queries: Any
) -> Iterator[tuple[int, Any]]:
    """The number of the first row, and the scores of all queries and the rows from there: float32, (num_query, n)."""
    first, size = 0, max(_GROUP, _TILE_SCORES // len(queries) // _GROUP * _GROUP)  # whole groups
    for block in blocks:
        for start in range(0, len(block.scales), size):
            own = slice(start, start + size)
            if queries.dtype == rows.torch.bfloat16:
                scores = _bfloat16_products(rows.torch, queries, _rounded_rows(rows, block, own))
            else:
                scores = (queries @ block.rows[own].to(rows.device).T).mul_(block.scales[own])
            if rows.metric == "euclidean":
                scores.add_(block.offsets[own])
            columns = slice(first, first + scores.shape[1])
            if uploaded.forbidden is not None:
                scores.masked_fill_(uploaded.forbidden[columns], -np.inf)
            if uploaded.keys is not None:
                q_keys, g_keys = uploaded.keys
                scores.masked_fill_(q_keys == g_keys[columns], -np.inf)
            yield first, scores
            first = columns.stop


def _rounded_rows(rows: DeviceRows, block: DeviceBlock, own: slice) -> Any:
    if block.rounded is not None:
        return block.rounded[own]
    rounded, _ = rows.rounded(block.rows[own].to(rows.device) * block.scales[own, None])
    return rounded


def _bfloat16_products(torch: Any, queries: Any, rows: Any) -> Any:
    """Summed in float32 and left so, which torch can only do on GPUs: elsewhere, products of the same in float32."""
    if queries.is_cuda:
        return torch.mm(queries, rows.T, out_dtype=torch.float32)
    return queries.float() @ rows.float().T


def _highest(torch: Any, scores: Any, width: int) -> tuple[Any, Any]:
    """The highest scores of each query, at most ``width`` and in any order, and their columns.

    They are in the groups of columns with the highest maxima, as many groups as scores: of a wide tile, one pass looks
    at everything, and choosing goes through little.
    """
    num_query, num_columns = scores.shape
    if num_columns <= 2 * width * _GROUP:
        return tuple(scores.topk(min(width, num_columns), sorted=False))
    if num_columns % _GROUP:
        scores = torch.nn.functional.pad(scores, (0, -num_columns % _GROUP), value=-np.inf)
    groups = scores.view(num_query, -1, _GROUP)
    highest = groups.amax(2).topk(width, sorted=False).indices
    some = groups.gather(1, highest[:, :, None].expand(-1, -1, _GROUP)).view(num_query, -1)
    found, places = some.topk(width, sorted=False)
    return found, highest.gather(1, places // _GROUP) * _GROUP + places % _GROUP


def _rescored(rows: DeviceRows, blocks: list[DeviceBlock], uploaded: _Uploaded, best: _Best) -> _Best:
    """The same rows, in the same places, with their float32 scores."""
    scores, first = best.scores.new_full(best.scores.shape, -np.inf), 0
    at_once = max(1, _RESCORE_BYTES // (4 * uploaded.queries.shape[1]))
    for block in blocks:
        stop = first + len(block.scales)
        is_here = (best.rows >= first) & (best.rows < stop) & ~best.scores.isneginf()
        for pairs in is_here.nonzero().split(at_once):
            queries, places = pairs.unbind(1)
            own = best.rows[queries, places] - first
            products = block.rows[own.to(block.rows.device)].to(rows.device).mul_(uploaded.queries[queries])
            scores[queries, places] = products.sum(1) * block.scales[own] + block.offsets[own]
        first = stop
    return _Best(scores, best.rows)


def _candidates_among(
    question: Question, uploaded: _Uploaded, scanned: _Best, best: _Best, errors: Any
) -> Candidates:
    """Which of the best rows can be among the nearest, and of which queries they all are here.

    Args:
        question: the question, and
        uploaded: the same on the device.
        scanned: what a scan has kept.
        best: the same rows with float32 scores.
        errors: float64, (num_query,): how far the scores of the scan can be from the truth.
    """
    # k rows are truly there, or nearer.
    lowest = best.scores.topk(question.k).values[:, -1].double() - uploaded.errors
    last = scanned.scores[:, -1].double()
    # Rows that the scan has not kept score no higher than the last one that it has.
    is_whole = (last + errors < lowest) | last.isneginf()
    if scanned.scores.shape[1] == len(question.allowed):
        is_whole.fill_(True)
    rows, order = best.rows.sort(1)
    highest = best.scores.gather(1, order).double() + uploaded.errors[:, None]
    is_kept = is_whole[:, None] & (highest >= lowest[:, None]) & ~highest.isneginf()
    ends = is_kept.sum(1).cumsum(0).cpu().numpy()
    return Candidates(
        np.append(0, ends),
        rows[is_kept].cpu().numpy(),
        highest[is_kept].float().cpu().numpy(),
        is_whole.cpu().numpy(),
    )
