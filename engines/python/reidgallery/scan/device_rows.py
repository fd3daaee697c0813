"""A gallery's rows where torch computes, kept from search to search; torch is imported on demand.

The rows are in blocks, which belong to the parts of the gallery: a part that is new is uploaded, one from which rows
are removed is packed where it is, and the others stay. Each block is stored twice, in float32 and, for the scan, in
bfloat16; where the memory of the device is full, its float32 rows stay with the CPU, or both do, and are moved for each
search.
"""

import threading
import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from reidruntime.errors import InputError, NotInstalledError

from reidgallery.rows import Features, Floats64, GalleryRows, Metric
from reidgallery.scan.scoring import row_scales

_BLOCK_BYTES = 2**29  # of float32 rows
_LEFT_FREE_BYTES = 4 * 2**30  # on the GPU, for the tiles of a search and what packing a block needs


class DeviceBlock(NamedTuple):
    """Some rows of a gallery, one after the other.

    Attributes:
        rows: float32, (n, D): on the device, or the gallery's own memory where it has no room.
        rounded: bfloat16, (n, D): the rows times their scales; None where the device has no room.
        residual: at least the norm of what rounding has left out of any row.
        scales: float32, (n,), on the device: what products are multiplied with to become scores.
        offsets: float32, (n,), on the device: what is then added; see :func:`reidgallery.scan.scoring.row_scales`.
    """

    rows: Any
    rounded: Any | None
    residual: float
    scales: Any
    offsets: Any


class DeviceRows:
    """The rows of one gallery on a device; threads may ask for them at once.

    Attributes:
        torch: the module.
        device: ``torch.device``.
        metric: what the rows are scaled for.
    """

    def __init__(self, device: str, metric: Metric) -> None:
        """Start without rows.

        Raises:
            NotInstalledError: torch is not installed, or finds no such GPU.
            InputError: there is no device of that name.
        """
        try:
            import torch
        except ImportError as error:
            raise NotInstalledError(
                f"Searching on {device!r} needs torch, which is not installed: pip install torch"
            ) from error
        try:
            self.device = torch.device(device)
        except RuntimeError as error:
            raise InputError(f"There is no device {device!r}. Expected cpu, cuda or cuda:NUMBER.") from error
        if self.device.type not in ("cpu", "cuda"):
            raise InputError(f"The device must be cpu, cuda or cuda:NUMBER, got {device!r}.")
        if self.device.type == "cuda" and (self.device.index or 0) >= torch.cuda.device_count():
            raise NotInstalledError(
                f"torch finds no GPU {device!r}. Check with nvidia-smi, or leave the device out."
            )
        self.torch: Any = torch
        self.metric = metric
        self._lock = threading.Lock()
        self._parts: dict[int, tuple[Features, list[DeviceBlock]]] = {}  # by id, with what keeps the id taken

    def blocks(self, gallery: GalleryRows) -> list[DeviceBlock]:
        """Those of all rows, in order; new parts are uploaded, those of the past are dropped."""
        with self._lock, self.torch.inference_mode():
            ids, blocks = set(map(id, gallery.parts)), []
            self._parts = {key: value for key, value in self._parts.items() if key in ids}
            for part, place in gallery.placed_parts():
                if id(part) not in self._parts:
                    self._parts[id(part)] = part, self._uploaded(part, gallery.norms[place])
                blocks += self._parts[id(part)][1]
            return blocks

    def pack(self, part: Features, kept: NDArray[np.bool_], packed: Features) -> None:
        """Replace a part by ``packed``, which is ``part[kept]``, without uploading it."""
        with self._lock, self.torch.inference_mode():
            _, blocks = self._parts.pop(id(part), (part, None))
            if blocks is None:
                return
            try:
                self._parts[id(packed)] = packed, self._packed(blocks, kept, packed)
            except self.torch.OutOfMemoryError:
                return  # the next search uploads the part

    def rounded(self, scaled: Any) -> tuple[Any, Any]:
        """Float32 rows in bfloat16, and at least the norm of what rounding leaves out of each; overwrites them."""
        rounded = scaled.bfloat16()
        residuals = self.torch.linalg.vector_norm(scaled.sub_(rounded), dim=1)
        return rounded, residuals * (1 + 2.0**-22 * scaled.shape[1])  # norms are summed in float32

    def _uploaded(self, part: Features, norms: Floats64) -> list[DeviceBlock]:
        rows = self._tensor(part)
        scales, offsets = (
            self.torch.tensor(terms.astype(np.float32), device=self.device)
            for terms in row_scales(norms, self.metric)
        )
        size = max(1, _BLOCK_BYTES // (4 * part.shape[1]))
        return [
            self._block(*columns)
            for columns in zip(rows.split(size), scales.split(size), offsets.split(size), strict=True)
        ]

    def _block(self, rows: Any, scales: Any, offsets: Any) -> DeviceBlock:
        room = self._free_bytes()
        on_device = rows.to(self.device)
        rounded, residuals = self.rounded(on_device * scales[:, None])
        return DeviceBlock(
            on_device if room >= rows.nbytes + rounded.nbytes else rows,
            rounded if room >= rounded.nbytes else None,
            float(residuals.max()),
            scales,
            offsets,
        )

    def _packed(
        self, blocks: list[DeviceBlock], kept: NDArray[np.bool_], packed: Features
    ) -> list[DeviceBlock]:
        """The rows that are kept; those that are not on a GPU are taken from the new part, which frees the old one."""
        own, found, start, first = self._tensor(packed), [], 0, 0
        for block in blocks:
            places = np.flatnonzero(kept[start : start + len(block.rows)])
            start += len(block.rows)
            if not len(places):
                continue
            is_all = len(places) == len(block.rows)
            index = None if is_all else self.torch.tensor(places, device=self.device)
            own_rows = block.rows if block.rows.is_cuda else None
            rows, rounded, scales, offsets = (
                values if index is None or values is None else values.index_select(0, index)
                for values in (own_rows, block.rounded, block.scales, block.offsets)
            )
            if rows is None:
                rows = own[first : first + len(places)]
            found.append(DeviceBlock(rows, rounded, block.residual, scales, offsets))
            first += len(places)
        return found

    def _tensor(self, part: Features) -> Any:
        """The part itself, not a copy."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor is it written to
            return self.torch.from_numpy(part)

    def _free_bytes(self) -> float:
        """What rows may still take: what is free on the device, and what torch holds without using it."""
        if self.device.type == "cpu":
            return np.inf
        cuda = self.torch.cuda
        free, _ = cuda.mem_get_info(self.device)
        unused = cuda.memory_reserved(self.device) - cuda.memory_allocated(self.device)
        return float(free + unused - _LEFT_FREE_BYTES)
