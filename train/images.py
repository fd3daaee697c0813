"""The training images, decoded once and kept as uint8 where the network is; and the batches made of them."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from reidruntime.images.preprocess import image_pixels
from torch import Tensor

from reidexport.checkpoint.loading import imagenet_preprocess
from reidexport.data import ImageRecord
from reidexport.errors import DatasetError
from reidexport.machine import machine_info
from train.augmentation import Draws, augment, draw_augmentation
from train.recipe import Erasing, Recipe
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
        images: float32 (B, 3, H, W), normalized.
        labels: int64 (B,).
        waited_s: seconds that the network waited for it.
    """

    images: Tensor
    labels: Tensor
    waited_s: float


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
    _refuse_too_many(len(records), height_px, width_px)
    pixels = decoded(records, height_px, width_px, workers=workers, progress=progress)
    pids = [record.pid for record in records]
    labels = np.searchsorted(np.unique(pids), pids)
    return TrainImages(pixels.to(device), torch.from_numpy(labels).to(device))


def decoded(
    records: Sequence[ImageRecord],
    height_px: int,
    width_px: int,
    *,
    workers: int,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Images of files as uint8 (N, height_px, width_px, 3), RGB, in memory.

    Raises:
        ImageError: an image cannot be read.
    """
    preprocess = imagenet_preprocess(height_px, width_px)
    pixels = np.empty((len(records), height_px, width_px, 3), np.uint8)

    def read(record: ImageRecord) -> NDArray[np.uint8]:
        return image_pixels(record.path, str(record.path), preprocess)

    with ThreadPoolExecutor(workers) as pool:
        for index, image in enumerate(pool.map(read, records)):
            pixels[index] = image
            if progress and index % 100 == 99:
                progress(index + 1)
    return torch.from_numpy(pixels)


def batches_of_epoch(
    images: TrainImages,
    recipe: Recipe,
    epoch: int,
    plan: Sequence[Indices],
    *,
    first: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int,
) -> Iterator[TrainBatch]:
    """Make the batches of an epoch on a CPU, in threads ahead of the network.

    Every batch's random numbers depend on the seed, the epoch and its place alone, so an epoch can be resumed anywhere.

    Args:
        images: from :func:`load_train_images`.
        recipe: batch, augmentation and seed.
        epoch: counted from 1.
        plan: from :func:`plan_of_epoch`.
        first: batches to skip, which an interrupted run has done already.
        rank: of this process.
        world_size: processes that share every batch, by identities.
        workers: threads that make batches.
    """

    def make(step: int) -> tuple[Tensor, Tensor]:
        indices, draws = drawn_batch(recipe, epoch, plan, step, rank, world_size)
        pixels = augment(images.pixels, indices, draws, recipe.images.pad_px, erasing_of(recipe))
        return pixels, images.labels[indices]

    # One thread each: their own teams of threads would compete with the network's for cores.
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        ahead: deque[Future[tuple[Tensor, Tensor]]] = deque()
        for step in range(first, len(plan)):
            ahead.append(pool.submit(make, step))
            if len(ahead) > _BATCHES_AHEAD:
                yield _waited_for(ahead.popleft())
        while ahead:
            yield _waited_for(ahead.popleft())


def plan_of_epoch(images: TrainImages, recipe: Recipe, epoch: int) -> list[Indices]:
    """Which images each batch of an epoch holds."""
    rng = np.random.default_rng((recipe.seed, epoch, _BATCHES))
    return epoch_batches(images.labels.tolist(), recipe.batch.num_pids, recipe.batch.num_instances, rng)


def drawn_batch(
    recipe: Recipe, epoch: int, plan: Sequence[Indices], step: int, rank: int, world_size: int
) -> tuple[Tensor, Draws]:
    """Which images one process trains on in a step, int64 (B,), and what happens to each, on the CPU."""
    rng = np.random.default_rng((recipe.seed, epoch, _AUGMENTATION, step))
    draws = draw_augmentation(rng, len(plan[step]), recipe.images, erasing_of(recipe))
    size = len(plan[step]) // world_size
    start, stop = rank * size, (rank + 1) * size
    return torch.from_numpy(plan[step][start:stop]), draws.part(start, stop)


def erasing_of(recipe: Recipe) -> Erasing | None:
    """The settings of random erasing, where the trick is on."""
    return recipe.erasing if recipe.tricks.random_erasing else None


def _waited_for(batch: Future[tuple[Tensor, Tensor]]) -> TrainBatch:
    began = time.perf_counter()
    images, labels = batch.result()
    return TrainBatch(images, labels, time.perf_counter() - began)


def _refuse_too_many(count: int, height_px: int, width_px: int) -> None:
    size_mib = count * height_px * width_px * 3 >> 20
    memory_mib = machine_info()["memory_mib"]
    if memory_mib is not None and size_mib > memory_mib:
        raise DatasetError(
            f"{count} training images of {height_px}x{width_px} px need {size_mib} MiB, and this machine has "
            f"{memory_mib} MiB of memory: set images.height_px and images.width_px lower"
        )
