"""How many images a second go from JPEG files to features, and does reading them slow the network down?"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from benchmarks.comparison import Compare
from benchmarks.peers import num_threads, torch_network
from benchmarks.subjects import Subject
from benchmarks.turns import rounded
from reidexport.datasets import Dataset


class JpegFiles(torch.utils.data.Dataset[torch.Tensor]):
    """Files as training code reads them: Pillow, torchvision's resizing, normalised float32 tensors."""

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
    batch_size, num_images = (4, 16) if quick else (32, 256)
    records = (*dataset.query, *dataset.scored_gallery)
    paths = [str(record.path) for record in records]
    paths = [paths[index % len(paths)] for index in range(num_images)]
    pixels, num_batches = subject.pixels(batch_size), num_images // batch_size

    def network_alone() -> None:
        for _ in range(num_batches):
            subject.session.run(pixels)

    sides: dict[str, Callable[[], Any]] = {"network alone": network_alone}
    if subject.checkpoint:
        sides["torch DataLoader"] = _torch_pipeline(paths, batch_size, subject)
        subject.check(sides["torch DataLoader"](), subject.session.embed(paths, batch_size=batch_size))
    row = compare(
        f"end to end of {subject}, batch {batch_size}",
        f"{num_images} JPEG files, in the page cache, to float32 features; network alone: as many batches of pixels in "
        f"memory; torch DataLoader: {num_threads()} running workers that decode and resize with Pillow, torch eager",
        lambda: subject.session.embed(paths, batch_size=batch_size),
        sides,
    )
    row |= subject.about(batch_size=batch_size)
    row["images_per_s"] = rounded(num_images / row["seconds"]["reidexport"]["median"])


def _torch_pipeline(paths: Sequence[str], batch_size: int, subject: Subject) -> Callable[[], Any]:
    """The usual loop over a DataLoader, whose workers stay between turns."""
    network = torch_network(subject.checkpoint, subject.options)
    files = JpegFiles(paths, subject)
    loader = DataLoader(files, batch_size, num_workers=num_threads(), persistent_workers=True)
    return lambda: np.concatenate([network(images).numpy() for images in loader])
