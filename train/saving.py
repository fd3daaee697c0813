"""Saving a run in the background: a copy of its state, and the thread that writes it."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from reidexport.errors import ReidExportError


@dataclass(frozen=True)
class Snapshot:
    """A run's state at one moment: copies, which later steps leave alone.

    Attributes:
        weights: of the network.
        learner: what :meth:`train.learner.Learner.state` returns.
        progress: where the run is, as plain data.
        copied: on a GPU: the event after which the copies, which stay there, are complete.
    """

    weights: dict[str, Any]
    learner: dict[str, Any]
    progress: dict[str, Any]
    copied: torch.cuda.Event | None

    def on_cpu(self) -> "Snapshot":
        """The same in the CPU's memory, without waiting for steps that the GPU has yet to do."""
        if self.copied is None:
            return self
        device = next(iter(self.weights.values())).device
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_event(self.copied)
        with torch.cuda.stream(stream):
            weights, learner = (_each(value, torch.Tensor.cpu) for value in (self.weights, self.learner))
        return Snapshot(weights, learner, self.progress, None)


def snapshot(
    weights: dict[str, Any], learner: dict[str, Any], progress: dict[str, Any], device: torch.device
) -> Snapshot:
    """Copy a run's state, on the device where it is; ``progress`` must be a copy already."""
    weights, learner = (_each(value, lambda tensor: tensor.detach().clone()) for value in (weights, learner))
    copied: torch.cuda.Event | None = None
    if device.type == "cuda":
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(torch.cuda.current_stream(device))
    return Snapshot(weights, learner, progress, copied)


class Saver:
    """Writes snapshots in a thread, one at a time; the next call raises what the thread raised."""

    def __init__(self, write: Callable[[Snapshot, Sequence[str]], None], every_s: float) -> None:
        """Nothing is due before ``every_s`` seconds have passed; ``write`` gets a snapshot and further files' names."""
        self._write, self._every_s = write, every_s
        self._thread = ThreadPoolExecutor(1, "saving")
        self._writing: Future[None] | None = None
        self._kept: Snapshot | None = None
        self._saved_at_s = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it is time to save again, and the thread is free."""
        if self._writing is not None and self._writing.done():
            self._wait()
        return self._writing is None and time.monotonic() - self._saved_at_s >= self._every_s

    def save(self, state: Snapshot, names: Sequence[str] = ()) -> None:
        """Start to write, after what is being written now."""
        self._wait()
        self._kept, self._saved_at_s = None, time.monotonic()
        self._writing = self._thread.submit(self._write, state, names)

    def keep(self, state: Snapshot) -> None:
        """Remember what to write should the run end before the next :meth:`save`."""
        self._kept = state

    def finish(self) -> None:
        """Write what was kept, and wait until all is written."""
        if self._kept is not None:
            self.save(self._kept)
        self._wait()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


@contextmanager
def finished_at_the_end(saver: Saver) -> Iterator[Saver]:
    """Write everything before the block is left, even by an error, whose notes then say if writing failed."""
    try:
        yield saver
        saver.finish()
    except BaseException as error:
        try:
            saver.finish()
        except (ReidExportError, OSError) as failure:
            error.add_note(f"Nor could the last finished epoch be saved: {failure}")
        raise
    finally:
        saver.close()


def _each(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Nested plain data with its tensors changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _each(each, change) for key, each in value.items()}
    return [_each(each, change) for each in value] if isinstance(value, list) else value
