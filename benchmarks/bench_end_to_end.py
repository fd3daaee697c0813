"""How many images a second go from JPEG files to features, and does reading them slow the network down?"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from reidruntime.backends import BACKENDS
from reidruntime.images.resize import Image8
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from benchmarks.harness.comparison import Compare
from benchmarks.harness.subjects import Subject, device
from benchmarks.harness.turns import Side, rounded
from benchmarks.peers.peers import num_threads, torch_network
from reidexport.data import Dataset

_ON_GPU = "network alone, in the GPU's memory"


class JpegFiles(torch.utils.data.Dataset[torch.Tensor]):
    """Files as training code reads them: Pillow, torchvision's resizing, normalized float32 tensors."""

    def __init__(self, paths: Sequence[str], subject: Subject) -> None:
        wanted = subject.session.manifest.preprocess
        self.paths = paths
        self.transform = v2.Compose(
            [
                v2.Resize((wanted.height_px, wanted.width_px)),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(list(wanted.mean), list(wanted.std)),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as image:
            pixels: torch.Tensor = self.transform(image.convert("RGB"))
        return pixels


def test_files_to_features(compare: Compare, subject: Subject, dataset: Dataset, quick: bool) -> None:
    """Session.embed, against the network alone and against a DataLoader that feeds torch."""
    on_gpu = device() == "cuda"
    batch_size, num_images = (4, 16) if quick else (256, 16_384) if on_gpu else (32, 256)
    maximum = subject.session.manifest.batch_profile.maximum
    batch_size = min(batch_size, maximum or batch_size)
    records = (*dataset.query, *dataset.scored_gallery)
    paths = [str(record.path) for record in records]
    paths = [paths[index % len(paths)] for index in range(num_images)]
    pixels, num_batches = subject.pixels(batch_size), num_images // batch_size

    def network_alone() -> None:
        for _ in range(num_batches):
            subject.session.run(pixels)

    sides: dict[str, Callable[[], Any]] = {"network alone": network_alone}
    if on_gpu and BACKENDS[subject.session.backend].takes_tensors:
        sides[_ON_GPU] = _network_on_gpu(subject, pixels, num_batches)
    if subject.checkpoint:
        sides["torch DataLoader"] = _torch_pipeline(paths, batch_size, subject)
        subject.check(sides["torch DataLoader"](), subject.session.embed(paths, batch_size=batch_size))
    row = compare(
        f"end to end of {subject}, batch {batch_size}",
        f"{num_images} JPEG files, in the page cache, to float32 features; network alone: as many batches of pixels in "
        f"memory; torch DataLoader: {num_threads()} running workers that decode and resize with Pillow, torch eager"
        f"{f' in {subject.precision}' * on_gpu}",
        lambda: subject.session.embed(paths, batch_size=batch_size),
        sides,
    )
    row |= subject.about(batch_size=batch_size)
    row["images_per_s"] = rounded(num_images / row["seconds"]["reidexport"]["median"])
    if _ON_GPU in sides and isinstance(row["ratios"], dict):
        row["share_of_network"] = row["ratios"][_ON_GPU]["median"]


def _network_on_gpu(subject: Subject, pixels: Image8, num_batches: int) -> Side:
    """As many batches, from a tensor to a tensor in the GPU's memory: what ``test_on_the_gpu`` measures."""
    images = torch.from_numpy(subject.own_input(pixels)).cuda()

    def run() -> None:
        for _ in range(num_batches):
            subject.session.run_tensor(images)
        torch.cuda.synchronize()

    return run


def _torch_pipeline(paths: Sequence[str], batch_size: int, subject: Subject) -> Callable[[], Any]:
    """The usual loop over a DataLoader, whose workers stay between turns."""
    network = torch_network(subject.checkpoint, subject.options, subject.precision)
    files = JpegFiles(paths, subject)
    on_gpu = device() == "cuda"
    loader = DataLoader(
        files, batch_size, num_workers=num_threads(), persistent_workers=True, pin_memory=on_gpu
    )
    return lambda: np.concatenate([network(images).numpy() for images in loader])
