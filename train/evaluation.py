"""The trained network scored on the test split, as ``reidexport eval`` scores its checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from reidruntime.artifact.manifest import Feature, Metric
from reidruntime.torch_settings import exact_float32
from torch import Tensor

from reidexport.checkpoint.family import rename_keys
from reidexport.checkpoint.loading import Checkpoint, imagenet_preprocess, model_from_checkpoint
from reidexport.checkpoint.projects.own import REIDEXPORT
from reidexport.data import Dataset
from reidexport.errors import InputError
from reidexport.evaluation.scoring import Evaluation, evaluate
from reidexport.evaluation.torch_session import session_from_checkpoint
from reidexport.export.graph import GraphOptions, graph_from_checkpoint, manifest_of_graph
from reidexport.models import Baseline
from train.augmentation import normalize
from train.images import decoded

_BATCH_SIZE = 256


def checkpoint_in_memory(model: Baseline, height_px: int, width_px: int) -> Checkpoint:
    """What :func:`reidexport.load_checkpoint` would return for this network, without a file."""
    state_dict = {key: tensor.detach().cpu() for key, tensor in model.state_dict().items()}
    return Checkpoint(
        name="network in training",
        sha256="",
        family=REIDEXPORT.name,
        layout="in memory",
        architecture=model.architecture,
        preprocess=imagenet_preprocess(height_px, width_px),
        state_dict=rename_keys(state_dict, REIDEXPORT),
        facts=(),
    )


@dataclass(frozen=True)
class TestImages:
    """The test split in memory: queries and scored gallery.

    Attributes:
        pixels: uint8 (N, H, W, 3) RGB, at the network's size.
        places: the row of every image.
    """

    pixels: Tensor
    places: dict[Path, int]


def load_test_images(
    dataset: Dataset,
    height_px: int,
    width_px: int,
    device: torch.device,
    *,
    workers: int,
    progress: Callable[[int], None] | None = None,
) -> TestImages:
    """Decode the test split and keep it on a device: 1.9 GB for Market-1501 at 256x128.

    Raises:
        ImageError: an image cannot be read.
    """
    records = (*dataset.query, *dataset.scored_gallery)
    pixels = decoded(records, height_px, width_px, workers=workers, progress=progress)
    return TestImages(pixels.to(device), {record.path: place for place, record in enumerate(records)})


def fits_on_gpu(dataset: Dataset, height_px: int, width_px: int, device: torch.device) -> bool:
    """Whether the test split needs at most half of the free memory: the network needs some too."""
    free, _ = torch.cuda.mem_get_info(device)
    num_images = len(dataset.query) + len(dataset.scored_gallery)
    return num_images * height_px * width_px * 3 <= free / 2


class PixelEmbedder:
    """Embeds images that :class:`TestImages` holds, in float32 on their device.

    Attributes:
        manifest: as of a session of the checkpoint.
        description: what computes.
    """

    def __init__(self, checkpoint: Checkpoint, images: TestImages, options: GraphOptions) -> None:
        graph = graph_from_checkpoint(checkpoint, replace(options, input="uint8"))
        device = images.pixels.device
        self.manifest = manifest_of_graph(graph)
        self.description = f"torch {torch.__version__} on {device.type}, fp32, channels-last"
        self._images = images
        model = model_from_checkpoint(checkpoint)
        self._model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def embed(
        self,
        images: Sequence[Path],
        *,
        camids: Sequence[int] | None = None,
        batch_size: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> NDArray[np.float32]:
        """float32 (len(images), D); the images are those of :class:`TestImages`.

        Raises:
            InputError: ``camids`` are given: a network in training has no camera profile.
        """
        if camids is not None:
            raise InputError("A network in training has no camera profile. Leave camids out.")
        places = torch.tensor([self._images.places[path] for path in images])
        parts = []
        for rows in torch.split(places, batch_size or _BATCH_SIZE):
            parts.append(self._features(self._images.pixels[rows.to(self._images.pixels.device)]).cpu())
            if progress:
                progress(sum(map(len, parts)))
        features: NDArray[np.float32] = torch.cat(parts).numpy()
        return features

    @torch.inference_mode()
    def _features(self, pixels: Tensor) -> Tensor:
        with exact_float32():
            f_t, f_i = self._model(normalize(pixels.permute(0, 3, 1, 2)))
        features: Tensor = f_i if self.manifest.feature == "f_i" else f_t
        return features


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    dataset: Dataset,
    *,
    metric: Metric,
    feature: Feature | None = None,
    rerank: bool = False,
    images: TestImages | None = None,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Embed the test split in float32 and score it.

    Args:
        checkpoint: from a file or from :func:`checkpoint_in_memory`.
        dataset: with queries and gallery.
        metric: cosine or euclidean.
        feature: f_i or f_t; None: f_i where there is a neck.
        rerank: k-reciprocal re-ranking (paper, table 4).
        images: the test split on a GPU; None: it is read from its files.
        progress: called with the number of images done.
    """
    options = GraphOptions(feature=feature)
    if images is not None:
        embedder = PixelEmbedder(checkpoint, images, options)
        return evaluate(embedder, dataset, metric=metric, rerank=rerank, progress=progress)
    with session_from_checkpoint(checkpoint, options, threads=torch.get_num_threads()) as session:
        return evaluate(session, dataset, metric=metric, rerank=rerank, progress=progress)


def scores(evaluation: Evaluation) -> dict[str, Any]:
    """rank1, rank5, rank10, mAP and mINP as fractions, and what they were computed with."""
    return {
        "dataset": evaluation.dataset,
        "feature": evaluation.manifest.feature,
        "metric": evaluation.metric,
        "rerank": evaluation.rerank,
        "same_camera": evaluation.same_camera,
        **evaluation.metrics.as_dict(),
    }
