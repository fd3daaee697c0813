"""Scalars for TensorBoard, one point per epoch."""

from pathlib import Path
from typing import Any


class Scalars:
    """Writes the numbers of every epoch; without a folder, nowhere."""

    def __init__(self, folder: Path | None, epochs_done: int) -> None:
        self._writer: Any = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            # Points after the checkpoint that a run continues from are drawn again.
            self._writer = SummaryWriter(folder / "tensorboard", purge_step=epochs_done + 1)

    def add(self, record: dict[str, Any]) -> None:
        """Add the record of an epoch, as ``history.json`` holds it."""
        if self._writer is None:
            return
        numbers = {
            **record,
            **{f"test/{name}": value for name, value in record.get("evaluation", {}).items()},
        }
        for name, value in numbers.items():
            if isinstance(value, float):
                self._writer.add_scalar(name if "/" in name else f"train/{name}", value, record["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()


def open_scalars(folder: Path | None, epochs_done: int) -> Scalars:
    """Scalars below a run's folder, or nowhere for None; earlier points of a run that continues stay."""
    return Scalars(folder, epochs_done)
