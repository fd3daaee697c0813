"""TransReID's children: what their tokens tell of the images, and whose camera embedding is added."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.checkpoint.loading import Checkpoint, load_checkpoint, model_from_checkpoint
from reidexport.errors import CheckpointError, InputError
from reidexport.evaluation import evidence
from reidexport.export.graph import graph_from_checkpoint, manifest_of_graph
from reidexport.models.vit import resized_positions, shuffle_patches
from tests.conftest import Run
from tests.standins.checkpoints import golden_cases, relative_l2, seeded_weights


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PersonViT's ViT-Ti of 256x128 images, with a table of six cameras."""
    shapes = {**golden_cases()["pv_vit_tiny"]["shapes"], "base.sie_embed": [6, 1, 192]}
    path = tmp_path_factory.mktemp("vit") / "vit.pth"
    torch.save(seeded_weights(shapes, 1), path)
    return path


def load(path: Path, **choices: Any) -> Checkpoint:
    """The checkpoint, as the choices say."""
    return load_checkpoint(path, CheckpointChoices(**choices))


def answer(checkpoint: Checkpoint) -> Tensor:
    """f_t of two images of the checkpoint's size."""
    pixels = checkpoint.preprocess
    images = torch.rand(2, 3, pixels.height_px, pixels.width_px, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        f_t: Tensor = model_from_checkpoint(checkpoint)(images)[0]
    return f_t


def test_the_camera_is_said_and_changes_the_answer(vit: Path) -> None:
    """No camera is a fact that is printed; each camera answers otherwise, and the manifest says which was taken."""
    without = load(vit)
    line = (
        "assumed: no camera embedding added, of 6, where its project adds each image's own (set with --camid)"
    )
    assert line in without.fact_lines
    first, last = load(vit, camera=1), load(vit, camera=6)
    assert relative_l2(answer(first), answer(without)) > 0.01
    assert relative_l2(answer(first), answer(last)) > 0.01
    assert "the embedding of camera 6 of 6 added" in last.fact_lines[1]
    assert "assumed: camera embedding times 3 (as in TransReID; set with --camera-weight)" in last.fact_lines
    assert relative_l2(answer(load(vit, camera=6, camera_weight=1.0)), answer(last)) > 0.01
    cameras = manifest_of_graph(graph_from_checkpoint(last)).architecture.cameras
    assert cameras is not None
    assert (cameras.count, cameras.camera, cameras.weight) == (6, 6, 3.0)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"camera": 7}, "--camid 7: this vit_tiny_16 has embeddings of 6 cameras, from 1"),
        ({"camera_weight": 3.0}, "--camera-weight weighs the embedding of a camera: give --camid too"),
        ({"pooling": "gem"}, "vit_tiny_16 has no global pooling to choose: leave --pooling out"),
        ({"last_stride": 1}, "vit_tiny_16 has no last stride to set: leave --last-stride out"),
        ({"size": (8, 8)}, "--size 8x8: its patches are of 16 px, images must not be smaller"),
    ],
)
def test_what_it_does_not_have_is_refused(vit: Path, choices: dict[str, Any], message: str) -> None:
    """A camera beyond the table, a pooling, a stride or a size that a ViT does not have is refused by its option."""
    with pytest.raises(InputError, match=message):
        load(vit, **choices)


def test_cameras_of_a_network_without_embeddings_are_refused(resnet_file: Path) -> None:
    """A ResNet has no camera embeddings: stating a camera is an error, not nothing."""
    with pytest.raises(InputError, match="--camid 1: this resnet18 has no camera embeddings"):
        load(resnet_file, camera=1)


@pytest.fixture
def resnet_file(tmp_path: Path) -> Path:
    """A strong baseline."""
    torch.save(seeded_weights(golden_cases()["sb_resnet18"]["shapes"], 1), tmp_path / "model.pth")
    return tmp_path / "model.pth"


def test_positions_are_resized_for_other_sizes_only(vit: Path) -> None:
    """As many patches in another arrangement keep their embeddings; more or fewer are interpolated."""
    usual, turned, taller = load(vit), load(vit, size=(128, 256)), load(vit, size=(384, 128))
    grids = [each.architecture.tokens.grid for each in (usual, turned, taller) if each.architecture.tokens]
    assert grids == [(16, 8), (8, 16), (24, 8)]
    own, kept, resized = (each.state_dict["backbone.pos_embed"] for each in (usual, turned, taller))
    assert torch.equal(own, kept)
    assert resized.shape == (1, 1 + 24 * 8, 192)
    assert torch.equal(resized[:, 0], own[:, 0])
    assert answer(taller).shape == (2, 192)


def test_resizing_is_bilinear_between_centers() -> None:
    """Each new embedding is the mean of its neighbors' by distance of centers, one pixel at a time."""
    old, new = (3, 2), (5, 4)
    positions = torch.randn(1, 1 + 6, 4, generator=torch.Generator().manual_seed(0))
    as_map = positions[0, 1:].reshape(3, 2, 4).double().numpy()
    wanted = np.empty((5, 4, 4))
    for row in range(5):
        for column in range(4):
            y, x = (row + 0.5) * 3 / 5 - 0.5, (column + 0.5) * 2 / 4 - 0.5
            y, x = max(y, 0), max(x, 0)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, 2), min(left + 1, 1)
            down, across = y - top, x - left
            upper = as_map[top, left] * (1 - across) + as_map[top, right] * across
            lower = as_map[bottom, left] * (1 - across) + as_map[bottom, right] * across
            wanted[row, column] = upper * (1 - down) + lower * down
    found = resized_positions(positions, old, new)[0, 1:].reshape(5, 4, 4)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize("num_patches", [8, 9])
def test_shuffle_interleaves_two_groups_behind_a_shift(num_patches: int) -> None:
    """The first four patches go to the end, then the halves are interleaved; an odd number repeats the last but one."""
    tokens = torch.arange(1.0 + num_patches).reshape(1, -1, 1)
    order = [*range(5, 1 + num_patches), 1, 2, 3, 4]
    if num_patches % 2:
        order.append(order[-2])
    half = len(order) // 2
    wanted = [patch for pair in zip(order[:half], order[half:], strict=True) for patch in pair]
    assert shuffle_patches(tokens, num_patches).flatten().tolist() == wanted


def test_a_table_of_another_width_is_no_transreid(vit: Path, tmp_path: Path) -> None:
    """A tensor of another shape than the network's is named, with both shapes."""
    weights = torch.load(vit, weights_only=True)
    weights["base.sie_embed"] = torch.zeros(6, 1, 100)
    torch.save(weights, tmp_path / "vit.pth")
    with pytest.raises(CheckpointError, match=r"sie_embed has shape \[6, 1, 100\], expected \[6, 1, 192\]"):
        load(tmp_path / "vit.pth")


def test_default_feature_is_the_published_one(vit: Path) -> None:
    """TransReID publishes f_t, before the neck: so does the graph unless f_i is asked for."""
    graph = graph_from_checkpoint(load(vit))
    assert graph.options.feature == "f_t"
    assert graph_from_checkpoint(load(vit), replace(graph.options, feature="f_i")).options.feature == "f_i"


def test_evidence_varies_what_the_file_leaves_open(vit: Path) -> None:
    """Images of other sizes are tried where they have as many patches as there are embeddings, and no pooling is."""
    sized = load(vit, size=(384, 128))
    changes = list(evidence._alternatives(replace(sized, facts=load(vit).facts)))
    assert [change["size"] for change in changes if "size" in change] == [(256, 192)]
    assert not any("pooling" in change or "last_stride" in change for change in changes)
    turned = evidence._changed(sized, {"size": (256, 192)})
    assert turned.architecture.tokens is not None
    assert turned.architecture.tokens.grid == (16, 12)
    assert answer(turned).shape == (2, 192)


def test_inspect_prints_the_tokens(vit: Path, run: Run) -> None:
    """The description of a transformer has its patches and cameras on a line of their own."""
    done = run("inspect", vit, "--camid", "2")
    assert done.returncode == 0, done.stderr
    assert (
        "tokens         grid [16, 8], stride_px 16, num_cameras 6, camera 2, camera_weight 3" in done.stdout
    )
