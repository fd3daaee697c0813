"""The training images, decoded once and kept as uint8 where the network is; and the batches made of them."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from reidruntime.preprocess import image_pixels
from torch import Tensor

from reidexport.checkpoint import imagenet_preprocess
from reidexport.datasets import ImageRecord
from reidexport.errors import DatasetError
from reidexport.machine import machine_info
from train.augmentation import augment, draw_augmentation
from train.recipe import Recipe
from train.sampler import Indices, epoch_batches

_BATCHES_AHEAD = 4
_BATCHES, _AUGMENTATION = range(2)  # streams of random numbers


@dataclass(frozen=True)
class TrainImages:
    """The training split in memory.

    Attributes:
        pixels: uint8 (N, H, W, 3) RGB, at the network's size, on the network's device.
        labels: int64 (N,), in [0, num_classes), on the same device.
    """

    pixels: Tensor
    labels: Tensor

    @property
    def num_classes(self) -> int:
        """How many identities there are."""
        return int(self.labels.max()) + 1


@dataclass(frozen=True)
class TrainBatch:
    """One process's part of a batch.

    Attributes:
        images: float32 (B, 3, H, W), normalised.
        labels: int64 (B,).
        waited: seconds that the network waited for it; on a GPU to be asked when its work is done.
    """

    images: Tensor
    labels: Tensor
    waited: Callable[[], float]


def load_train_images(
    records: Sequence[ImageRecord],
    height_px: int,
    width_px: int,
    device: torch.device,
    *,
    workers: int,
    progress: Callable[[int], None] | None = None,
) -> TrainImages:
    """Decode and resize every training image, exactly as a session does when it embeds.

    Args:
        records: the training split; identities become classes in the order of their pids.
        height_px: of the network's input.
        width_px: of the network's input.
        device: where to keep them: 1.3 GB for Market-1501 at 256x128.
        workers: threads that decode.
        progress: called with the number of images done.

    Raises:
        DatasetError: the split is empty, or does not fit into memory.
        ImageError: an image cannot be read.
    """
    if not records:
        raise DatasetError(
            "the data set has no training images: expected them in bounding_box_train or train"
        )
    preprocess = imagenet_preprocess(height_px, width_px)
    pixels = _room_for(len(records), height_px, width_px)

    def read(record: ImageRecord) -> NDArray[np.uint8]:
        return image_pixels(record.path, str(record.path), preprocess)

    with ThreadPoolExecutor(workers) as pool:
        for index, image in enumerate(pool.map(read, records)):
            pixels[index] = image
            if progress and index % 100 == 99:
                progress(index + 1)
    pids = [record.pid for record in records]
    labels = np.searchsorted(np.unique(pids), pids)
    return TrainImages(torch.from_numpy(pixels).to(device), torch.from_numpy(labels).to(device))


def batches_of_epoch(
    images: TrainImages,
    recipe: Recipe,
    epoch: int,
    plan: Sequence[Indices],
    *,
    first: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 1,
) -> Iterator[TrainBatch]:
    """The augmented batches of one epoch; seed, epoch and place in it decide everything about each.

    On a CPU threads make them ahead of the network; on a GPU they are made where they are used, in the stream.

    Args:
        images: from :func:`load_train_images`.
        recipe: batch, augmentation and seed.
        epoch: counted from 1.
        plan: from :func:`plan_of_epoch`.
        first: batches to leave out, which an interrupted run has done already.
        rank: of this process.
        world_size: processes that share every batch, by identities.
        workers: threads that make batches on a CPU.
    """
    size = recipe.batch.num_pids * recipe.batch.num_instances // world_size
    erasing = recipe.erasing if recipe.tricks.random_erasing else None

    def make(step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((recipe.seed, epoch, _AUGMENTATION, step))
        draws = draw_augmentation(rng, len(plan[step]), recipe.images, erasing)
        mine = slice(rank * size, (rank + 1) * size)
        indices = torch.from_numpy(plan[step][mine]).to(images.pixels.device, non_blocking=True)
        part = draws.part(mine.start, mine.stop)
        return augment(images.pixels, indices, part, recipe.images.pad_px, erasing), images.labels[indices]

    steps = iter(range(first, len(plan)))
    if images.pixels.is_cuda:
        for step in steps:
            yield _made_on_gpu(make, step)
        return
    # One thread each: their own teams of threads would take the cores from the network's.
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        ahead: deque[Future[tuple[Tensor, Tensor]]] = deque()
        for step in steps:
            ahead.append(pool.submit(make, step))
            if len(ahead) > _BATCHES_AHEAD:
                yield _waited_for(ahead.popleft())
        while ahead:
            yield _waited_for(ahead.popleft())


def plan_of_epoch(images: TrainImages, recipe: Recipe, epoch: int) -> list[Indices]:
    """Which images each batch of an epoch takes."""
    rng = np.random.default_rng((recipe.seed, epoch, _BATCHES))
    return epoch_batches(images.labels.tolist(), recipe.batch.num_pids, recipe.batch.num_instances, rng)


def _waited_for(batch: Future[tuple[Tensor, Tensor]]) -> TrainBatch:
    began = time.perf_counter()
    images, labels = batch.result()
    seconds = time.perf_counter() - began
    return TrainBatch(images, labels, lambda: seconds)


def _made_on_gpu(make: Callable[[int], tuple[Tensor, Tensor]], step: int) -> TrainBatch:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    images, labels = make(step)
    end.record()
    return TrainBatch(images, labels, lambda: start.elapsed_time(end) / 1000)


def _room_for(count: int, height_px: int, width_px: int) -> NDArray[np.uint8]:
    size_mib = count * height_px * width_px * 3 >> 20
    memory_mib = machine_info()["memory_mib"]
    if memory_mib is not None and size_mib > memory_mib:
        raise DatasetError(
            f"{count} training images of {height_px}x{width_px} px take {size_mib} MiB, and this machine has "
            f"{memory_mib} MiB of memory: set images.height_px and images.width_px lower"
        )
    return np.empty((count, height_px, width_px, 3), np.uint8)
