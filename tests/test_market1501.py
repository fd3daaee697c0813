"""Published accuracies, on the real data set with a real checkpoint."""

import os
from pathlib import Path

import pytest
from reidruntime import open_session

from reidexport import evaluate, graph_from_checkpoint, load_checkpoint, onnx_from_graph
from reidexport.data import load_dataset
from reidexport.evaluation.scoring import score_features

WEIGHTS = "osnet_x0_25_market1501.pth"


@pytest.mark.data
def test_torchreid_osnet_x0_25_keeps_its_accuracy(data_root: Path, tmp_path: Path) -> None:
    """The exported OSNet x0.25 of torchreid reaches 91.5 / 77.4 (cosine) and 91.1 / 74.9 (Euclidean)."""
    weights = Path(os.environ.get("REIDEXPORT_WEIGHTS", ".")) / WEIGHTS
    if not weights.is_file():
        pytest.skip(f"needs torchreid's {WEIGHTS} in the folder REIDEXPORT_WEIGHTS")
    onnx_from_graph(graph_from_checkpoint(load_checkpoint(weights)), tmp_path / "osnet.onnx")
    with open_session(tmp_path / "osnet.onnx") as session:
        found = evaluate(session, load_dataset(data_root, "market1501"))
    euclidean = score_features(found.q_feats, found.g_feats, found.query, found.gallery, metric="euclidean")
    assert found.metrics.rank1 == pytest.approx(0.915, abs=0.002)
    assert found.metrics.mAP == pytest.approx(0.774, abs=0.002)
    assert euclidean.rank1 == pytest.approx(0.911, abs=0.002)
    assert euclidean.mAP == pytest.approx(0.749, abs=0.002)
