"""SOLIDER's Swin transformers: the semantic weight that no file holds, and what comes before the neck."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.checkpoint.loading import Checkpoint, load_checkpoint, model_from_checkpoint
from reidexport.errors import InputError
from reidexport.evaluation import evidence
from reidexport.evaluation.opening import recorded_choices
from reidexport.export.graph import graph_from_checkpoint, manifest_of_graph
from tests.standins.checkpoints import expected, golden_images, golden_weights, normalized, relative_l2


@pytest.fixture(scope="module")
def swin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Swin-T's golden weights in upstream's file."""
    path = tmp_path_factory.mktemp("solider") / "transformer_120.pth"
    torch.save(golden_weights("so_swin_t"), path)
    yield path
    path.unlink()


def load(path: Path, **choices: Any) -> Checkpoint:
    """The checkpoint, as the choices say."""
    return load_checkpoint(path, CheckpointChoices(**choices))


def test_the_semantic_weight_is_said_and_changes_everything(swin: Path) -> None:
    """0.2 is assumed as in upstream's commands and printed; 1.0 answers something else, and is in the manifest."""
    usual, told = load(swin), load(swin, semantic_weight=1.0)
    assert "assumed: semantic weight 0.2 (as in SOLIDER-REID; set with --semantic-weight)" in usual.fact_lines
    assert "told: semantic weight 1" in told.fact_lines
    images = normalized(golden_images("so_swin_t"), "so_swin_t")
    with torch.inference_mode():
        f_t, other = (model_from_checkpoint(each)(images)[0] for each in (usual, told))
    assert relative_l2(f_t, expected("so_swin_t", "f_t")) < 1e-4
    assert relative_l2(other, expected("so_swin_t", "f_t")) > 1.0
    manifest = manifest_of_graph(graph_from_checkpoint(told))
    assert (manifest.architecture.semantic_weight, manifest.origins["semantic_weight"]) == (1.0, "told")
    assert recorded_choices(manifest).semantic_weight == 1.0


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan")])
def test_a_semantic_weight_is_a_share(swin: Path, weight: float) -> None:
    """What is not from 0 to 1 is refused."""
    with pytest.raises(InputError, match=f"--semantic-weight must be from 0 to 1, got {weight}"):
        load(swin, semantic_weight=weight)


def test_a_plain_swin_has_no_semantic_weight(swin: Path, tmp_path: Path) -> None:
    """Without the tensors of the embedding (upstream's negative weight) there is none, and stating one is refused."""
    weights = torch.load(swin, weights_only=True)
    path = tmp_path / "plain.pth"
    torch.save({key: tensor for key, tensor in weights.items() if "semantic" not in key}, path)
    assert load(path).architecture.semantic_weight is None
    assert "semantic_weight" not in load(path).origins
    with pytest.raises(
        InputError, match="this swin_tiny has no semantic embedding: leave --semantic-weight out"
    ):
        load(path, semantic_weight=0.2)


def test_fcneck_is_part_of_f_t(tmp_path: Path) -> None:
    """The layer before the neck makes f_t, of whatever dimension it has."""
    path = tmp_path / "fcneck.pth"
    torch.save(golden_weights("so_swin_t_fcneck"), path)
    checkpoint = load(path)
    assert checkpoint.architecture.reduced
    assert graph_from_checkpoint(checkpoint).feature_dim == checkpoint.architecture.feature_dim == 512
    assert replace(checkpoint.architecture, reduced=False) != checkpoint.architecture


def test_evidence_tries_the_other_semantic_weight(swin: Path) -> None:
    """What the file leaves open is tried: 1.0 of upstream's defaults beside 0.2 of its commands."""
    usual = load(swin)
    changes = [change for change in evidence._alternatives(usual) if "semantic_weight" in change]
    assert changes == [{"semantic_weight": 1.0}]
    assert evidence._changed(usual, changes[0]).architecture.semantic_weight == 1.0
