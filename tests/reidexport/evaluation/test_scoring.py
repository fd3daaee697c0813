import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from click.testing import Result
from PIL import Image
from reidruntime.artifact.manifest import Manifest
from typer.testing import CliRunner

from reidexport.cli.eval import eval_
from reidexport.data import Dataset
from reidexport.errors import ImageError, InputError
from reidexport.evaluation.scoring import Features, evaluate, score_features
from reidexport.metrics.cmc_map import evaluate_rank
from reidexport.metrics.rerank import k_reciprocal
from reidexport.records.accuracy import EvaluationRecord
from tests.standins.runtime_models import write_artifact

MANIFEST = Manifest.model_validate(
    {
        "producer": {"name": "test", "version": "1"},
        "source": {"name": "thumbnails", "sha256": "0" * 64},
        "architecture": {
            "backbone": "thumbnail",
            "family": "test",
            "stem_relu": False,
            "pooling": "avg",
            "neck": "none",
            "feature_dim": 96,
        },
        "input": {"name": "images", "dtype": "uint8", "shape": [None, 8, 4, 3]},
        "output": {"name": "f_i", "dtype": "float32", "shape": [None, 96]},
        "preprocess": {"height_px": 8, "width_px": 4, "mean": [0.5] * 3, "std": [0.5] * 3, "in_graph": True},
        "feature": "f_i",
        "normalized": False,
        "flip": False,
        "metric": "euclidean",
        "precision": "fp32",
        "layer_precisions": {},
        "batch_profile": {},
    }
)


class Thumbnails:
    """A session whose features are tiny thumbnails; it records its calls."""

    manifest = MANIFEST
    description = "thumbnails on a test"

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.paths: list[Path] = []
        self.batch_size: int | None = None

    def __enter__(self) -> "Thumbnails":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def embed(
        self, images: Sequence[Path], *, camids: None, batch_size: Any = None, progress: Any = None
    ) -> Features:
        """Thumbnails as rows."""
        self.paths, self.batch_size = list(images), batch_size
        if progress:
            progress(len(images))
        rows = [np.asarray(Image.open(path).resize((4, 8)), np.float32).ravel() - 118 for path in images]
        return self.scale * np.stack(rows)


def test_scores_are_those_of_the_features(drawn_dataset: Dataset) -> None:
    """Queries and gallery are embedded in one go, without junk, and scored with the manifest's metric."""
    session = Thumbnails()
    done: list[int] = []
    result = evaluate(session, drawn_dataset, batch_size=5, progress=done.append)
    gallery = drawn_dataset.scored_gallery
    assert session.paths == [record.path for record in (*drawn_dataset.query, *gallery)]
    assert (session.batch_size, done) == (5, [len(session.paths)])
    assert (result.metric, result.gallery) == ("euclidean", gallery)
    expected = score_features(result.q_feats, result.g_feats, result.query, gallery, metric="euclidean")
    assert result.metrics.as_dict() == expected.as_dict()
    assert 0.2 < result.metrics.rank1 < 1


def test_json_has_the_agreed_keys(drawn_dataset: Dataset) -> None:
    """One flat object that json can write, accuracies as fractions, with counts, machine and versions."""
    record = evaluate(Thumbnails(), drawn_dataset, metric="cosine").record("model.onnx")
    result = json.loads(record.model_dump_json())
    assert EvaluationRecord.model_validate(result) == record
    assert {"rank1", "rank5", "rank10", "mAP", "mINP", "machine", "versions"} <= set(result)
    assert (result["artifact"], result["dataset"], result["metric"]) == ("model.onnx", "drawn", "cosine")
    assert result["manifest_sha256"] == MANIFEST.sha256
    counts = {key: value for key, value in result.items() if key.startswith("num_")}
    assert counts == {
        "num_query": 18,
        "num_query_without_match": 0,
        "num_gallery": 18 + 18,
        "num_distractor": 18,
        "num_junk": 6,
    }


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_reranking_scores_the_reranked_distances(drawn_dataset: Dataset, metric: Any) -> None:
    """Re-ranking uses unit-length features for cosine, and the features themselves for Euclidean."""
    result = evaluate(Thumbnails(), drawn_dataset, metric=metric, rerank=True)
    q_feats, g_feats = result.q_feats, result.g_feats
    if metric == "cosine":
        q_feats, g_feats = (
            feats / np.linalg.norm(feats, axis=1, keepdims=True) for feats in (q_feats, g_feats)
        )
    labels = [
        [getattr(r, key) for r in part] for key in ("pid", "camid") for part in (result.query, result.gallery)
    ]
    assert result.metrics.mAP == pytest.approx(evaluate_rank(k_reciprocal(q_feats, g_feats), *labels).mAP)


def test_broken_features_name_an_image(drawn_dataset: Dataset) -> None:
    """A session that answers NaN or infinity gets no score."""
    with pytest.raises(
        InputError, match=r"features of \d+ of 54 images are NaN or infinite, first those of .*jpg"
    ):
        evaluate(Thumbnails(scale=float("nan")), drawn_dataset)


def test_features_of_zeros_are_not_compared_by_cosine(drawn_dataset: Dataset) -> None:
    """A network that answers with zeros gets no score by cosine, whose words name an image and the other metric."""
    with pytest.raises(
        InputError, match=r"54 of 54 images are zeros only.* first those of .*jpg.*--metric euclid"
    ):
        evaluate(Thumbnails(scale=0), drawn_dataset, metric="cosine")
    assert evaluate(Thumbnails(scale=0), drawn_dataset, metric="euclidean").metrics.mAP > 0


def test_an_unreadable_image_is_not_scored_around(drawn_dataset: Dataset) -> None:
    """What the session raises comes through."""

    class Failing(Thumbnails):
        def embed(self, images: Sequence[Path], **options: Any) -> Features:
            raise ImageError(f"{images[0]}: cut short")

    with pytest.raises(ImageError, match="cut short"):
        evaluate(Failing(), drawn_dataset)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> typer.Typer:
    """`reidexport eval` in a folder with a file model.onnx, opening thumbnails whatever it is given."""
    write_artifact(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("reidexport.evaluation.opening.open_any", lambda *_, **__: Thumbnails())
    app = typer.Typer()
    app.command()(eval_)
    return app


def output_and_json(
    command: typer.Typer, dataset: Dataset, option: str, json_file: Path
) -> tuple[Result, dict[str, Any]]:
    """What the command prints, and what it writes."""
    root = dataset.query[0].path.parents[1]
    result = CliRunner().invoke(
        command, ["model.onnx", "--data", str(root), option, "--json", str(json_file)]
    )
    assert result.exit_code == 0, result.output
    return result, json.loads(json_file.read_text())


def test_command_prints_and_writes_the_scores(
    command: typer.Typer, drawn_dataset: Dataset, tmp_path: Path
) -> None:
    """The table shows what the JSON holds: what was measured, on what, and the five scores."""
    result, scores = output_and_json(command, drawn_dataset, "--rerank", tmp_path / "result.json")
    assert (scores["artifact"], scores["rerank"], scores["num_query"]) == ("model.onnx", True, 18)
    assert (
        "drawn: 18 queries (0 without a match), 36 gallery images (18 distractors), 6 junk" in result.stdout
    )
    assert "metric    euclidean, re-ranked" in result.stdout
    assert f"{scores['mAP']:.2%}" in result.stdout.splitlines()[-1]


def test_command_refuses_a_feature_of_a_foreign_file(
    command: typer.Typer, drawn_dataset: Dataset, tmp_path: Path
) -> None:
    """A file without a manifest has one output: --feature cannot choose."""
    root, file = drawn_dataset.query[0].path.parents[1], tmp_path / "model.onnx"
    file.write_bytes(b"")
    result = CliRunner().invoke(
        command, [str(file), "--data", str(root), "--feature", "f_t", "--mean", "0.5", "--std", "0.5"]
    )
    assert isinstance(result.exception, InputError)
    assert "is an artifact, whose network is built in: leave out --feature" in str(result.exception)


def test_command_answers_which_threshold_to_use(
    command: typer.Typer, drawn_dataset: Dataset, tmp_path: Path
) -> None:
    """--thresholds prints what the JSON holds, in the sense of `reidexport search`, and warns of few data."""
    result, scores = output_and_json(command, drawn_dataset, "--thresholds", tmp_path / "result.json")
    lines = result.stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("pairs"))
    assert lines[start + 1].split() == ["FPR", "TPR", "threshold", "false", "matches"]
    for line, point in zip(lines[start + 2 :], scores["operating_points"], strict=False):
        fpr, tpr, threshold, num_false = line.split()
        assert (float(fpr), tpr) == (point["fpr"], f"{point['tpr']:.2%}")
        assert np.float32(threshold) == np.float32(point["threshold"])
        assert int(num_false) == point["num_false"]
    assert lines[start + 5] == (
        "The same person: the squared Euclidean distance is at most the threshold, "
        "as in `reidexport search --threshold`."
    )
    expected = evaluate(Thumbnails(), drawn_dataset).roc()
    assert scores["roc"] == {"fpr": expected.fpr.tolist(), "tpr": expected.tpr.tolist()}
    assert scores["warnings"] == list(expected.warnings) != []
    assert all(f"warning: {warning}" in result.stderr for warning in scores["warnings"])


def test_thresholds_are_not_of_reranked_distances(command: typer.Typer, drawn_dataset: Dataset) -> None:
    """A threshold on re-ranked distances would mean nothing for another gallery."""
    root = drawn_dataset.query[0].path.parents[1]
    result = CliRunner().invoke(command, ["model.onnx", "--data", str(root), "--thresholds", "--rerank"])
    assert isinstance(result.exception, InputError)
    assert "--thresholds are of distances" in str(result.exception)
    assert "Leave out --rerank" in str(result.exception)
