"""The demo's steps, each a call of the public function that a user would call."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from reidruntime.manifest import Preprocess
from reidruntime.session import Session, open_session

from reidexport.checkpoint import IMAGENET_MEAN, IMAGENET_STD, Checkpoint, load_checkpoint, save_checkpoint
from reidexport.datasets import Dataset, ImageRecord
from reidexport.demo.folder import replaced_folder
from reidexport.demo.summary import FILES, write_summary
from reidexport.demo.training import train_small_model
from reidexport.distances import distmat_from_features
from reidexport.evaluation import Evaluation, evaluate, score_features
from reidexport.graph import graph_from_checkpoint
from reidexport.machine import machine_info, package_versions
from reidexport.onnx_export import onnx_from_graph
from reidexport.pictures import ranked_list_picture
from reidexport.progress import progress_bar
from reidexport.synthetic import draw_dataset
from reidexport.timing import bench_session
from reidexport.torch_session import session_from_checkpoint
from reidexport.verify import verify

_PRECISIONS: tuple[Literal["fp32", "fp16"], ...] = ("fp32", "fp16")
_RAW_WIDTH_HEIGHT = (32, 64)
_NUM_PICTURED = 6


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
    size: tuple[int, int] = (128, 64)
    num_steps: int = 100
    num_pids_per_batch: int = 8
    num_instances: int = 4
    batch_sizes: tuple[int, ...] = (1, 8, 32)
    seconds_per_batch: float = 1.0


def run_demo(
    out: str | Path, *, settings: DemoSettings | None = None, say: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Draw people, train on them, export, verify, evaluate and measure; leave everything in one folder.

    Args:
        out: the folder; an earlier result of the demo there is replaced when the new one is whole.
        settings: smaller or larger than the default, which takes about two minutes on two cores.
        say: called with a line before every step.

    Returns:
        What ``summary.json`` holds; ``["passed"]`` tells whether both files passed ``verify``.

    Raises:
        InputError: ``out`` holds something that the demo did not make.
        NotInstalledError: ONNX Runtime is not installed.
        ParityError: an exported file does not answer as torch does.
    """
    settings, say = settings or DemoSettings(), say or (lambda _: None)
    began = time.perf_counter()
    with replaced_folder(Path(out), FILES) as folder:
        say("drawing people")
        dataset = _drawn(folder / "data", settings)
        say("training a ResNet-18 with BNNeck on them")
        training = _train(dataset, folder / "checkpoint.pth", settings)
        artifacts, evaluation = [], None
        checkpoint = load_checkpoint(folder / "checkpoint.pth")
        for precision in _PRECISIONS:
            say(f"exporting, verifying and measuring {precision}")
            artifact, evaluation = _artifact(checkpoint, dataset, folder / f"model-{precision}.onnx", precision, settings)
            artifacts.append(artifact)
        _picture(evaluation, folder / "ranked-lists.png")
        summary = {
            "dataset": _counts(dataset),
            "training": training,
            "raw_pixels": _raw_pixel_ranks(dataset),
            "artifacts": artifacts,
            "passed": all(artifact["verify"]["passed"] for artifact in artifacts),
            "seconds": time.perf_counter() - began,
            "machine": machine_info(),
            "versions": package_versions(),
        }
        write_summary(folder, summary)
    return summary
