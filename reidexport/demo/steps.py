"""The demo's steps; each calls the public function that a user would call."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from reidruntime.session import open_session

import reidexport
from reidexport.checkpoint.loading import Checkpoint
from reidexport.data import Dataset, ImageRecord, load_dataset
from reidexport.errors import InputError, NotInstalledError
from reidexport.evaluation.scoring import Evaluation, evaluate, score_features
from reidexport.evaluation.timing import bench_session
from reidexport.evaluation.torch_session import session_from_checkpoint
from reidexport.evaluation.verification import verify
from reidexport.export.graph import graph_from_checkpoint
from reidexport.export.onnx_export import onnx_from_graph
from reidexport.gallery.contact_sheets import ranked_list_sheet
from reidexport.progress import progress_bar
from reidexport.records.accuracy import Ranks
from reidexport.records.demo import DemoArtifact, DemoData, DemoTraining

CHECKOUT = Path(reidexport.__file__).parents[1]
_RAW_WIDTH_HEIGHT = (32, 64)
_NUM_DRAWN, _NUM_RANKS = 6, 8


@dataclass(frozen=True)
class DemoSettings:
    """How much is drawn, trained and measured.

    Attributes:
        changes: of the trainer's ``smoke`` recipe, as for its ``--set``.
        batch_sizes: to measure the speed with.
        seconds_per_batch: how long to measure each.
    """

    changes: tuple[str, ...] = ()
    batch_sizes: tuple[int, ...] = (1, 8, 32)
    seconds_per_batch: float = 1.0


def train(folder: Path, settings: DemoSettings) -> tuple[Dataset, DemoTraining]:
    """Draw people into ``data``, train on them into ``checkpoint.pth``, and return how."""
    result = _train_smoke(folder / "training", settings.changes)
    (folder / "training" / "data").rename(folder / "data")
    (folder / "training" / "best.pth").rename(folder / "checkpoint.pth")
    (folder / "training" / "last.pth").unlink()  # only to continue the training
    recipe = result["recipe"]
    training = DemoTraining(
        backbone=recipe["model"]["backbone"],
        height_px=recipe["images"]["height_px"],
        width_px=recipe["images"]["width_px"],
        num_epochs=recipe["schedule"]["num_epochs"],
        batch_size=recipe["batch"]["num_pids"] * recipe["batch"]["num_instances"],
        seconds=result["seconds"],
    )
    return load_dataset(folder / "data"), training


def _train_smoke(out: Path, changes: tuple[str, ...]) -> dict[str, Any]:
    """Run the trainer's ``smoke`` recipe as a user would; it draws people into ``out/data``. Return ``result.json``."""
    if not (CHECKOUT / "train" / "__main__.py").is_file():
        raise NotInstalledError(
            "the demo trains its network with the repository's trainer, which is not part of the installed package: "
            "run it in a checkout of reidexport, after pip install --editable '.[export,cpu,train]'"
        )
    options = [f"--out={out}", *(f"--set={change}" for change in changes)]
    command = [sys.executable, "-m", "train", "smoke", *options]
    done = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, check=False)  # noqa: S603
    if done.returncode == 3:
        raise NotInstalledError("the trainer lacks a package: pip install 'reidexport[train]'")
    if done.returncode:
        raise InputError(f"the trainer stopped with exit status {done.returncode}: {' '.join(command)}")
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    return result


def export(
    checkpoint: Checkpoint,
    dataset: Dataset,
    path: Path,
    precision: Literal["fp32", "fp16"],
    settings: DemoSettings,
) -> tuple[DemoArtifact, Evaluation]:
    """Write one ONNX file, verify it against the checkpoint, evaluate it and measure its speed."""
    onnx_from_graph(graph_from_checkpoint(checkpoint), path, precision=precision)
    with open_session(path) as session, session_from_checkpoint(checkpoint) as reference:
        with progress_bar("verifying", 2 * (len(dataset.query) + len(dataset.gallery))) as show:
            verified = verify(session, reference, dataset=dataset, progress=show)
        evaluation = evaluate(session, dataset)
        bench = bench_session(session, settings.batch_sizes, seconds_per_batch=settings.seconds_per_batch)
    # The folder is made under another name, so images are named without it.
    worst = tuple(each.model_copy(update={"image": Path(each.image).name}) for each in verified.worst)
    result = DemoArtifact(
        artifact=path.name,
        precision=precision,
        size_mib=path.stat().st_size / 2**20,
        eval=evaluation.record(path.name),
        verify=verified.model_copy(update={"artifact": path.name, "worst": worst}),
        bench=bench.model_copy(update={"artifact": path.name}),
    )
    return result, evaluation


def draw_ranked_lists(evaluation: Evaluation, path: Path) -> None:
    """Draw the ranked lists of a few queries, evenly taken from all of them."""
    last = len(evaluation.query) - 1
    chosen = np.unique(np.linspace(0, last, _NUM_DRAWN).round().astype(int)).tolist()
    query, found = [evaluation.query[index] for index in chosen], evaluation.nearest(chosen, _NUM_RANKS)
    ranked_list_sheet(query, evaluation.gallery, found, num_ranks=_NUM_RANKS).save(path)


def raw_pixel_ranks(dataset: Dataset) -> Ranks:
    """The scores of comparing pixels instead of features: what a network must beat."""
    q_pixels, g_pixels = _pixels(dataset.query), _pixels(dataset.scored_gallery)
    return score_features(q_pixels, g_pixels, dataset.query, dataset.scored_gallery, metric="cosine").ranks


def _pixels(records: tuple[ImageRecord, ...]) -> NDArray[np.float32]:
    """Small images as rows, each less its mean, so that brightness does not decide."""
    rows = [
        np.asarray(Image.open(record.path).convert("RGB").resize(_RAW_WIDTH_HEIGHT), np.float32).ravel()
        for record in records
    ]
    pixels: NDArray[np.float32] = np.stack(rows)
    pixels -= pixels.mean(axis=1, keepdims=True)
    return pixels


def counts(dataset: Dataset) -> DemoData:
    """The numbers of images and people."""
    return DemoData(
        num_train=len(dataset.train),
        num_train_pids=len({record.pid for record in dataset.train}),
        num_query=len(dataset.query),
        num_query_pids=len({record.pid for record in dataset.query}),
        num_gallery=len(dataset.gallery),
    )
