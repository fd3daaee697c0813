"""Published accuracies, on the real data set with a real checkpoint."""

import os
from pathlib import Path

import pytest
from reidruntime import open_session

from reidexport import evaluate, graph_from_checkpoint, load_checkpoint, onnx_from_graph
from reidexport.data import load_dataset
from reidexport.evaluation.evidence import check_assumptions, read_crops
from reidexport.evaluation.scoring import score_features

WEIGHTS = "osnet_x0_25_market1501.pth"


def osnet_weights() -> Path:
    """Torchreid's OSNet x0.25, or the test is skipped."""
    weights = Path(os.environ.get("REIDEXPORT_WEIGHTS", ".")) / WEIGHTS
    if not weights.is_file():
        pytest.skip(f"needs torchreid's {WEIGHTS} in the folder REIDEXPORT_WEIGHTS")
    return weights


@pytest.mark.data
def test_torchreid_osnet_x0_25_keeps_its_accuracy(data_root: Path, tmp_path: Path) -> None:
    """The exported OSNet x0.25 of torchreid reaches 91.5 / 77.4 (cosine) and 91.1 / 74.9 (Euclidean)."""
    onnx_from_graph(graph_from_checkpoint(load_checkpoint(osnet_weights())), tmp_path / "osnet.onnx")
    with open_session(tmp_path / "osnet.onnx") as session:
        found = evaluate(session, load_dataset(data_root, "market1501"))
    euclidean = score_features(found.q_feats, found.g_feats, found.query, found.gallery, metric="euclidean")
    assert found.metrics.rank1 == pytest.approx(0.915, abs=0.002)
    assert found.metrics.mAP == pytest.approx(0.774, abs=0.002)
    assert euclidean.rank1 == pytest.approx(0.911, abs=0.002)
    assert euclidean.mAP == pytest.approx(0.749, abs=0.002)


@pytest.mark.data
def test_its_batch_norms_recognize_how_osnet_was_trained(data_root: Path) -> None:
    """Of 25 configurations the right one fits 256 crops best, and no alternative is taken for it."""
    paths = sorted(map(str, (data_root / "market1501/query").glob("*.jpg")))
    _, evidence = check_assumptions(load_checkpoint(osnet_weights()), read_crops(paths))
    assert evidence.num_images == 256
    assert len(evidence.fits) >= 25
    assert evidence.fits[0].changed == ()
    assert evidence.warnings == ()
    assert evidence.fits[0].neck == pytest.approx(0.01, abs=0.003)
