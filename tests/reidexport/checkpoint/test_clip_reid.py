"""CLIP-ReID's encoders: their cameras, their two necks as one, and position embeddings of other sizes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.checkpoint.family import candidates_of
from reidexport.checkpoint.loading import Checkpoint, load_checkpoint, model_from_checkpoint
from reidexport.checkpoint.projects.clip_reid import CLIP_REID_VIT
from reidexport.errors import InputError
from reidexport.models.vit import TokenOptions
from tests.standins.checkpoints import golden_weights, relative_l2


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """RN50's golden weights under upstream's names."""
    return golden_weights("cl_rn50")


@pytest.fixture(scope="module")
def resnet(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same in a file, with a table of cameras, which upstream saves for RN50, too, and never uses."""
    path = tmp_path_factory.mktemp("clip") / "RN50_120.pth"
    torch.save({**weights, "cv_embed": torch.ones(6, 2048)}, path)
    yield path
    path.unlink()


def load(path: Path, **choices: Any) -> Checkpoint:
    """The checkpoint, as the choices say."""
    return load_checkpoint(path, CheckpointChoices(**choices))


def test_what_training_alone_uses_is_left_out(resnet: Path, tmp_path: Path) -> None:
    """Neither the classifiers nor the text encoder, the prompts and RN50's cameras are kept; the facts are RN50's."""
    checkpoint = load(resnet)
    assert {key.partition(".")[0] for key in checkpoint.state_dict} == {"backbone", "neck"}
    assert "backbone.sie_embed" not in checkpoint.state_dict
    assert checkpoint.preprocess.mean == (0.485, 0.456, 0.406)
    assert checkpoint.architecture.feature_dim == 2048 + 1024
    assert checkpoint.feature == "f_t"
    with pytest.raises(InputError, match="--camid 1: this clip_resnet50 has no camera embeddings"):
        load(resnet, camera=1)


def test_the_necks_are_one_over_both_features(resnet: Path, weights: dict[str, Tensor]) -> None:
    """f_i is each part of f_t behind its own BatchNorm, the formula applied by hand in float64."""
    model = model_from_checkpoint(load(resnet))
    images = torch.rand(2, 3, 256, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        f_t, f_i = (each.double() for each in model(images))
    wanted = []
    for part, name in ((f_t[:, :2048], "bottleneck"), (f_t[:, 2048:], "bottleneck_proj")):
        mean, variance, weight, bias = (
            weights[f"{name}.{each}"].double() for each in ("running_mean", "running_var", "weight", "bias")
        )
        wanted.append((part - mean) / (variance + 1e-5).sqrt() * weight + bias)
    assert relative_l2(f_i, torch.cat(wanted, 1)) < 1e-5


def test_positions_of_the_attention_pool_are_resized(resnet: Path) -> None:
    """Images of 192x96 px have 12x6 places: their embeddings are means of the nearest ones, by distance of centers."""
    usual, smaller = load(resnet), load(resnet, size=(192, 96))
    own, found = (each.state_dict["backbone.attnpool.pos_embed"][0].double() for each in (usual, smaller))
    assert torch.equal(found[0], own[0])
    as_map = own[1:].reshape(16, 8, -1).numpy()
    for row, column in ((0, 0), (5, 2), (7, 3), (11, 5)):
        y, x = (row + 0.5) * 16 / 12 - 0.5, (column + 0.5) * 8 / 6 - 0.5
        (top, down), (left, across) = divmod(y, 1), divmod(x, 1)
        upper, lower = (
            each[int(left)] * (1 - across) + each[int(left) + 1] * across
            for each in as_map[int(top) : int(top) + 2]
        )
        wanted = upper * (1 - down) + lower * down
        np.testing.assert_allclose(found[1 + row * 6 + column], wanted, atol=1e-6)
    for size in ((192, 96), (200, 104)):  # the latter has 128 patches in strides of 12, which RN50 has not
        with torch.inference_mode():
            f_t = model_from_checkpoint(load(resnet, size=size))(torch.zeros(1, 3, *size))[0]
        assert f_t.shape == (1, 3072)


@pytest.mark.parametrize(
    ("num_tokens", "size", "grid", "stride_px"),
    [
        (129, (256, 128), (16, 8), 16),
        (211, (256, 128), (21, 10), 12),
        (257, (256, 256), (16, 16), 16),
        (442, (256, 256), (21, 21), 12),
    ],
)
def test_tokens_tell_size_and_stride(
    num_tokens: int, size: tuple[int, int], grid: tuple[int, int], stride_px: int
) -> None:
    """Persons and vehicles, with and without overlapping patches, are told by the number of position embeddings."""
    shapes = {"backbone.pos_embed": (1, num_tokens, 768), "backbone.sie_embed": (15, 768)}
    (architecture,) = candidates_of(CLIP_REID_VIT, shapes)
    assert architecture.tokens == TokenOptions(grid, stride_px, num_cameras=15)
    assert CLIP_REID_VIT.size(architecture) == size
