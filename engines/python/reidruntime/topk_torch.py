"""The float32 scan of :mod:`reidruntime.topk_scan` on a GPU, or wherever torch computes; torch is imported when asked.

Tiles of scores, queries by rows, are computed, masked and cut down to the best of each query where the rows are; only
these come back. What then decides is what decides on a CPU: a bound on the error, and distances in float64.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from reidruntime.errors import GpuError, InputError, NotInstalledError
from reidruntime.gallery_rows import GalleryRows, Question
from reidruntime.topk_scan import Candidates, float32_terms

_TILE_ROWS = 8192
_SPARE = 64  # scores kept beyond k: rows so near the k-th that rounding can tell them wrongly
_LEFT_FREE_BYTES = 2**30  # on the GPU, for the tiles


def import_torch(device: str) -> Any:
    """Torch, which can use that device.

    Raises:
        NotInstalledError: torch is not installed, or finds no such GPU.
        InputError: it is the name of no device.
    """
    try:
        import torch
    except ImportError as error:
        raise NotInstalledError(
            f"Searching on {device!r} needs torch, which is not installed: pip install torch"
        ) from error
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"There is no device {device!r}. Expected cpu, cuda or cuda:NUMBER.") from error
    if wanted.type not in ("cpu", "cuda"):
        raise InputError(f"The device must be cpu, cuda or cuda:NUMBER, got {device!r}.")
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise NotInstalledError(
            f"torch finds no GPU {device!r}. Check with nvidia-smi, or leave the device out."
        )
    return torch


class DeviceRows:
    """A gallery's rows as tensors: on the device as far as its memory goes, the rest is moved for each search."""

    def __init__(self, gallery: GalleryRows, device: str) -> None:
        """Move what fits; raises as :func:`import_torch`."""
        self._torch = import_torch(device)
        self._device = self._torch.device(device)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor is it written to
            parts = [self._torch.from_numpy(part) for part in gallery.parts]
        self._blocks = [self._kept(block) for part in parts for block in part.split(_TILE_ROWS)]

    def candidates(self, question: Question) -> Candidates:
        """As :func:`reidruntime.topk_scan.float32_candidates`.

        Raises:
            GpuError: the tiles do not fit into the GPU's memory.
        """
        terms = float32_terms(question)
        try:
            with self._exact_products():
                scores, rows = self._best(
                    question,
                    terms.row_scales.astype(np.float32),
                    terms.column_scales.astype(np.float32),
                    np.where(question.allowed, terms.column_offsets, -np.inf).astype(np.float32),
                )
        except self._torch.OutOfMemoryError as error:
            raise GpuError(
                f"The search does not fit into the memory of {self._device}: {error}. Ask fewer queries at once."
            ) from error
        thresholds = scores[:, question.k - 1] - 2 * terms.errors
        last = scores[:, -1]
        # Where the last one kept is as near, so may be rows that were not.
        is_whole = (scores.shape[1] == len(question.allowed)) | (last == -np.inf) | (last < thresholds)
        is_kept = is_whole[:, None] & (scores >= thresholds[:, None]) & (scores > -np.inf)
        order = np.argsort(rows, axis=1)
        is_kept, scores, rows = (np.take_along_axis(a, order, 1) for a in (is_kept, scores, rows))
        highest = (scores + terms.errors[:, None]).astype(np.float32)
        return Candidates(
            np.append(0, np.cumsum(is_kept.sum(axis=1))), rows[is_kept], highest[is_kept], is_whole
        )

    def _best(self, question: Question, row_scales: Any, column_scales: Any, offsets: Any) -> tuple[Any, Any]:
        """The best scores of each query, falling, and their rows: arrays of shape (num_query, k + spare)."""
        torch, width = self._torch, question.k + _SPARE
        arrays = (question.queries, row_scales[:, None], column_scales, offsets, question.q_keys[:, None])
        queries, row_scales, column_scales, offsets, q_keys = (
            torch.tensor(array, device=self._device) for array in arrays
        )
        g_keys = torch.tensor(question.g_keys, device=self._device)
        best = torch.empty((len(queries), 0), device=self._device)
        best_rows = torch.empty((len(queries), 0), dtype=torch.int64, device=self._device)
        first = 0
        for block in self._blocks:
            columns = slice(first, first + len(block))
            scores = queries @ block.to(self._device).T
            scores.mul_(row_scales).mul_(column_scales[columns]).add_(offsets[columns])
            scores.masked_fill_(q_keys == g_keys[columns], -torch.inf)
            some, some_columns = scores.topk(min(width, len(block)), sorted=False)
            best, order = torch.cat([best, some], 1).topk(min(width, best.shape[1] + some.shape[1]))
            best_rows = torch.cat([best_rows, some_columns + first], 1).gather(1, order)
            first = columns.stop
        return best.cpu().numpy().astype(np.float64), best_rows.cpu().numpy()

    def _kept(self, block: Any) -> Any:
        if self._device.type == "cuda":
            free_bytes, _ = self._torch.cuda.mem_get_info(self._device)
            if free_bytes < _LEFT_FREE_BYTES + block.nbytes:
                return block
        return block.to(self._device)

    @contextmanager
    def _exact_products(self) -> Iterator[None]:
        """Float32 throughout: neither TF32 nor autocast, whatever the application has set."""
        torch = self._torch
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
                yield
        finally:
            torch.set_float32_matmul_precision(precision)
