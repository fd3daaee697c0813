"""The demo's steps; each calls the public function that a user would call."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from reidruntime.manifest import Preprocess
from reidruntime.session import Session, open_session

from reidexport.checkpoint import IMAGENET_MEAN, IMAGENET_STD, Checkpoint, save_checkpoint
from reidexport.datasets import Dataset, ImageRecord
from reidexport.demo.training import train_small_model
from reidexport.distances import distmat_from_features
from reidexport.evaluation import Evaluation, evaluate, score_features
from reidexport.graph import graph_from_checkpoint
from reidexport.onnx_export import onnx_from_graph
from reidexport.pictures import ranked_list_picture
from reidexport.progress import progress_bar
from reidexport.synthetic import draw_dataset
from reidexport.timing import bench_session
from reidexport.torch_session import session_from_checkpoint
from reidexport.verification import verify

_RAW_WIDTH_HEIGHT = (32, 64)
_NUM_PICTURED, _NUM_RANKS = 6, 8


@dataclass(frozen=True)
class DemoSettings:
    """How much is drawn, trained and measured.

    Attributes:
        num_train_pids: people to train on.
        num_test_pids: other people, to search for.
        size: (height, width) of the network's input in pixels.
        num_steps: training batches.
        num_pids_per_batch: people in a batch.
        num_instances: images of each.
        batch_sizes: to measure the speed with.
        seconds_per_batch: how long to measure each.
    """

    num_train_pids: int = 64
    num_test_pids: int = 32
    size: tuple[int, int] = (96, 48)
    num_steps: int = 100
    num_pids_per_batch: int = 8
    num_instances: int = 4
    batch_sizes: tuple[int, ...] = (1, 8, 32)
    seconds_per_batch: float = 1.0


def draw(root: Path, settings: DemoSettings) -> Dataset:
    """Draw the data set into ``root``."""
    with progress_bar("drawing", 100) as show:
        return draw_dataset(
            root,
            num_train_pids=settings.num_train_pids,
            num_test_pids=settings.num_test_pids,
            progress=show and (lambda done, total: show(100 * done // total)),
        )


def train(dataset: Dataset, path: Path, settings: DemoSettings) -> dict[str, Any]:
    """Train on the data set, write the checkpoint to ``path``, and tell how."""
    began = time.perf_counter()
    with progress_bar("training", settings.num_steps) as show:
        model = train_small_model(
            dataset.train,
            size=settings.size,
            num_steps=settings.num_steps,
            num_pids_per_batch=settings.num_pids_per_batch,
            num_instances=settings.num_instances,
            progress=show,
        )
    height, width = settings.size
    pixels = Preprocess(height_px=height, width_px=width, mean=IMAGENET_MEAN, std=IMAGENET_STD, in_graph=True)
    save_checkpoint(path, model, pixels)
    batch = settings.num_pids_per_batch * settings.num_instances
    return {
        "backbone": model.architecture.backbone,
        "height_px": height,
        "width_px": width,
        "num_steps": settings.num_steps,
        "batch_size": batch,
        "seconds": time.perf_counter() - began,
    }


def export(
    checkpoint: Checkpoint,
    dataset: Dataset,
    path: Path,
    precision: Literal["fp32", "fp16"],
    settings: DemoSettings,
) -> tuple[dict[str, Any], Evaluation]:
    """Write one ONNX file, verify it against the checkpoint, evaluate it and measure its speed."""
    onnx_from_graph(graph_from_checkpoint(checkpoint), path, precision=precision)
    with open_session(path) as session, session_from_checkpoint(checkpoint) as reference:
        verified = _verified(session, reference, dataset)
        evaluation = evaluate(session, dataset)
        bench = bench_session(session, settings.batch_sizes, seconds_per_batch=settings.seconds_per_batch)
    result = {
        "artifact": path.name,
        "precision": precision,
        "size_mib": path.stat().st_size / 2**20,
        "runtime": session.description,
        **evaluation.metrics.as_dict(),
        "metric": evaluation.metric,
        "verify": verified,
        "bench": [asdict(batch) for batch in bench.batches],
        "warnings": bench.warnings,
    }
    return result, evaluation


def _verified(session: Session, reference: Session, dataset: Dataset) -> dict[str, Any]:
    with progress_bar("verifying", 2 * (len(dataset.query) + len(dataset.gallery))) as show:
        result = verify(session, reference, dataset=dataset, progress=show)
    # The folder is made under another name: its files go by their own.
    worst = [{"image": Path(each.image).name, "cosine": each.cosine} for each in result.worst]
    return {**asdict(result), "worst": worst, "passed": result.passed, "drops": result.drops}


def picture(evaluation: Evaluation, path: Path) -> None:
    """Draw the ranked lists of a few queries, evenly taken from all of them."""
    last = len(evaluation.query) - 1
    chosen = np.unique(np.linspace(0, last, _NUM_PICTURED).round().astype(int))
    distmat = distmat_from_features(evaluation.q_feats[chosen], evaluation.g_feats, metric=evaluation.metric)
    query = [evaluation.query[index] for index in chosen]
    ranked_list_picture(query, evaluation.gallery, distmat, num_ranks=_NUM_RANKS).save(path)


def raw_pixel_ranks(dataset: Dataset) -> dict[str, Any]:
    """The scores of comparing pixels instead of features: what a network must beat."""
    gallery = dataset.scored_gallery
    ranks = score_features(_pixels(dataset.query), _pixels(gallery), dataset.query, gallery, metric="cosine")
    return {**ranks.as_dict(), "metric": "cosine"}


def _pixels(records: tuple[ImageRecord, ...]) -> NDArray[np.float32]:
    """Small pictures as rows, each less its mean, so that brightness does not decide."""
    rows = [
        np.asarray(Image.open(record.path).convert("RGB").resize(_RAW_WIDTH_HEIGHT), np.float32).ravel()
        for record in records
    ]
    pixels: NDArray[np.float32] = np.stack(rows)
    pixels -= pixels.mean(axis=1, keepdims=True)
    return pixels


def counts(dataset: Dataset) -> dict[str, int]:
    """How many images and people there are."""
    return {
        "num_train": len(dataset.train),
        "num_train_pids": len({record.pid for record in dataset.train}),
        "num_query": len(dataset.query),
        "num_query_pids": len({record.pid for record in dataset.query}),
        "num_gallery": len(dataset.gallery),
    }
