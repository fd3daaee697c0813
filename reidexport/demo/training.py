"""A minute of training on a CPU: enough for the demo, and by far not the recipe of the paper."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from reidexport.checkpoint import IMAGENET_MEAN, IMAGENET_STD
from reidexport.datasets import ImageRecord
from reidexport.models.baseline import Architecture, Baseline

MARGIN, LABEL_SMOOTHING, WEIGHT_DECAY = 0.3, 0.1, 5e-4
# The paper's 3.5e-4 is for weights that ImageNet has trained: from nothing, in so few steps, it stays behind.
LEARNING_RATE = 1e-3
_MAX_SHIFT_PX, _WARM_UP_SHARE = 8, 0.15


def train_small_model(
    records: tuple[ImageRecord, ...],
    *,
    size: tuple[int, int],
    num_steps: int,
    num_pids_per_batch: int = 16,
    num_instances: int = 4,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Baseline:
    """Train a ResNet-18 with BNNeck from nothing: label-smoothed ID loss on f_i, triplet loss on f_t (paper, 3).

    Args:
        records: the training images.
        size: (height, width) of the network's input in pixels.
        num_steps: batches to train on; the learning rate warms up and then falls along a cosine.
        num_pids_per_batch: P people in a batch.
        num_instances: K images of each.
        seed: of weights, batches and augmentation.
        progress: called with the number of steps done.

    Returns:
        The network in eval mode.
    """
    pids = np.unique([record.pid for record in records])
    labels = torch.from_numpy(np.searchsorted(pids, [record.pid for record in records]))
    images = _read(records, size)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = Baseline(Architecture("resnet18", feature_dim=512, num_classes=len(pids)))
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _learning_rate_share(step, num_steps)
    )
    batches = _batches(labels, num_pids_per_batch, num_instances, num_steps, generator)
    for step, batch in enumerate(batches, start=1):
        loss = _loss(model, _augmented(images[batch], generator), labels[batch])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        if progress:
            progress(step)
    return model.eval()


def _read(records: tuple[ImageRecord, ...], size: tuple[int, int]) -> Tensor:
    """All images, normalised: float32 (N, 3, height, width)."""
    pixels = [
        np.asarray(Image.open(record.path).convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))
        for record in records
    ]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(value).reshape(1, 3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    return ((images - mean) / std).contiguous()


def _batches(
    labels: Tensor, num_pids: int, num_instances: int, num_batches: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Indices of P x K images each; a person's images are drawn with replacement."""
    images_of = [torch.nonzero(labels == label).flatten() for label in range(int(labels.max()) + 1)]
    for _ in range(num_batches):
        chosen = torch.randperm(len(images_of), generator=generator)[:num_pids]
        yield torch.cat([_drawn(images_of[label], num_instances, generator) for label in chosen])


def _drawn(indices: Tensor, count: int, generator: torch.Generator) -> Tensor:
    order = torch.randperm(len(indices), generator=generator)
    return indices[order.repeat(-(-count // len(indices)))[:count]]


def _augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images and shift each by up to 8 px, zeros (the mean colour) coming in."""
    height, width = images.shape[2:]
    padded = functional.pad(images, [_MAX_SHIFT_PX] * 4)
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    corners = torch.randint(0, 2 * _MAX_SHIFT_PX + 1, (len(images), 2), generator=generator).tolist()
    crops = [
        image[:, top : top + height, left : left + width]
        for image, (top, left) in zip(padded, corners, strict=True)
    ]
    return torch.stack([crop.flip(2) if flip else crop for crop, flip in zip(crops, mirrored, strict=True)])


def _loss(model: Baseline, images: Tensor, labels: Tensor) -> Tensor:
    f_t, f_i = model(images)
    logits = model.get_submodule("classifier")(f_i)
    return functional.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING) + _triplet(f_t, labels)


def _triplet(f_t: Tensor, labels: Tensor) -> Tensor:
    """Batch-hard triplet loss: every anchor with its farthest positive and nearest negative (paper, 2)."""
    distances = torch.cdist(f_t, f_t)
    same = labels[:, None] == labels[None]
    positive = distances.masked_fill(~same, 0).max(1).values
    negative = distances.masked_fill(same, torch.inf).min(1).values
    return functional.relu(positive - negative + MARGIN).mean()


def _learning_rate_share(step: int, num_steps: int) -> float:
    warm_up = max(1, round(_WARM_UP_SHARE * num_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + float(np.cos(np.pi * (step - warm_up) / max(1, num_steps - warm_up))))
