"""A training step from the draws to the optimizers on buffers that stay in place, so that a CUDA graph can hold it.

draws ─▶ buffers ─▶ augment ─▶ network ─▶ losses ─▶ backward ─▶ optimizers ─▶ metrics
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from reidexport.errors import GpuError
from train.augmentation import Draws, augment
from train.distributed import Processes
from train.images import TrainImages, drawn_batch, erasing_of
from train.learner import Learner
from train.recipe import Recipe
from train.sampler import Indices

_PLAIN_STEPS = 3  # before recording: cuDNN chooses kernels, cuBLAS allocates workspace, Adam its state


class Recorder(Protocol):
    """Runs work as it is, and records it for later; :class:`CudaGraphRecorder` is the real one."""

    def run(self, work: Callable[[], Tensor]) -> Tensor:
        """Run the work where it is going to be recorded."""
        ...

    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Record the work without running it, and return what runs it again on the same memory."""
        ...


class CudaGraphRecorder:
    """Runs and records on a stream of its own, as a capture must not take place on the default one."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def run(self, work: Callable[[], Tensor]) -> Tensor:
        """Run the work on the stream, between what the current stream does before and after."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            answer = work()
        current.wait_stream(self._stream)
        return answer

    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Record the work in a CUDA graph.

        Raises:
            GpuError: the work cannot be recorded.
        """
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads, such as the one that saves, may use the GPU meanwhile.
            # torch.cuda.graph leaves its own stream current where a capture cannot be ended.
            with (
                torch.cuda.stream(self._stream),
                torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                answer = work()
        except RuntimeError as error:
            raise GpuError(
                f"the training step cannot be recorded in a CUDA graph: {error}. Run plain steps: --no-cuda-graph"
            ) from error

        def replay() -> Tensor:
            graph.replay()
            return answer.clone()

        return replay


class WholeStep:
    """The step of a run: plain at first, then recorded and replayed where that is possible.

    Attributes:
        why_plain: why no step is recorded; None: steps are.
    """

    def __init__(
        self,
        learner: Learner,
        images: TrainImages,
        recipe: Recipe,
        size: int,
        *,
        recorder: Recorder | None,
        why_plain: str | None = None,
    ) -> None:
        """Make the buffers.

        Args:
            learner: of the network.
            images: the training split, on the network's device.
            recipe: what to compute.
            size: images of one step in this process.
            recorder: None: every step is plain.
            why_plain: the reason for that.
        """
        device = images.pixels.device
        self.why_plain = why_plain
        self._learner, self._images, self._recipe, self._recorder = learner, images, recipe, recorder
        self._indices = torch.zeros(size, dtype=torch.int64, device=device)
        self._draws = Draws(
            mirrored=torch.zeros(size, dtype=torch.bool, device=device),
            corners=torch.zeros((size, 2), dtype=torch.int64, device=device),
            boxes=torch.zeros((size, 4), dtype=torch.int64, device=device),
        )
        self._plain_steps = 0
        self._replay: Callable[[], Tensor] | None = None

    def fill(self, indices: Tensor, draws: Draws) -> None:
        """Copy the next step's input from the CPU into the buffers."""
        buffers = (self._indices, self._draws.mirrored, self._draws.corners, self._draws.boxes)
        for buffer, value in zip(buffers, (indices, draws.mirrored, draws.corners, draws.boxes), strict=True):
            pinned = value.pin_memory() if buffer.is_cuda else value
            buffer.copy_(pinned, non_blocking=True)

    def run(self) -> Tensor:
        """Run the step: float32 (6,), the ``METRICS``, still on the device.

        Raises:
            GpuError: the step cannot be recorded.
        """
        if self._replay is None and self._recorder is not None and self._plain_steps == _PLAIN_STEPS:
            self._learner.allow_recording()
            self._replay = self._recorder.record(self._step)
        if self._replay is not None:
            return self._replay()
        if self._recorder is None:
            return self._step()
        state = _random_state(self._indices.device)
        metrics = self._recorder.run(self._step)
        self._plain_steps += 1
        if not torch.equal(state, _random_state(self._indices.device)):
            self._recorder, self.why_plain = None, "the network draws random numbers (dropout)"
        return metrics

    def _step(self) -> Tensor:
        recipe = self._recipe
        images = augment(
            self._images.pixels, self._indices, self._draws, recipe.images.pad_px, erasing_of(recipe)
        )
        return self._learner.step(images, self._images.labels[self._indices])


def steps_of_epoch(
    step: WholeStep, recipe: Recipe, epoch: int, plan: Sequence[Indices], first: int, processes: Processes
) -> Iterator[tuple[Tensor, Callable[[], float]]]:
    """Run the steps of an epoch on a GPU, which runs behind the CPU.

    Yields:
        The step's metrics, and a function that returns the seconds that the GPU waited for the step: call it when
        the GPU is done.
    """
    done: torch.cuda.Event | None = None
    for place in range(first, len(plan)):
        torch.manual_seed(seed_of_step(recipe, epoch, place))
        step.fill(*drawn_batch(recipe, epoch, plan, place, processes.rank, processes.world_size))
        began, ended = _event(), _event()
        began.record()
        metrics = step.run()
        ended.record()
        yield metrics, _gap(done, began)
        done = ended


def seed_of_step(recipe: Recipe, epoch: int, step: int) -> int:
    """What backbones with dropout draw from in a step."""
    return hash((recipe.seed, epoch, step))


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _gap(ended: torch.cuda.Event | None, began: torch.cuda.Event) -> Callable[[], float]:
    return lambda: 0.0 if ended is None else ended.elapsed_time(began) / 1000


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
