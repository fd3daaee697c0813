"""BatchNorm statistics of a site, against PyTorch's own training mode."""

import numpy as np
import pytest
import torch
from torch import nn

from reidexport.adaptation.statistics import (
    SiteNetwork,
    drawn_evenly,
    needed_mix,
    padded_and_cut,
    read_pixels,
)
from reidexport.checkpoint.loading import load_checkpoint, model_from_checkpoint
from reidexport.data import Dataset
from reidexport.models.baseline import batch_norms
from reidexport.records.adaptation import Divergence
from tests.conftest import Exported


@pytest.fixture
def pixels(exported: Exported, drawn_dataset: Dataset) -> np.ndarray:
    """A few drawn crops as the small network takes them."""
    preprocess = load_checkpoint(exported.checkpoint).preprocess
    return read_pixels([str(record.path) for record in drawn_dataset.gallery[:24]], preprocess, "refuse")


def test_all_of_the_site_is_what_training_mode_measures(exported: Exported, pixels: np.ndarray) -> None:
    """With a mix of 1 and one batch, statistics are those that PyTorch keeps of that batch in training mode."""
    checkpoint = load_checkpoint(exported.checkpoint)
    adapted = SiteNetwork(checkpoint).adapted(pixels, 1.0)
    model = model_from_checkpoint(checkpoint).train()
    for norm in batch_norms(model).values():
        norm.momentum = None  # the plain mean over batches, from the next reset on
        norm.reset_running_stats()
    mean, std = (
        torch.tensor(values).reshape(1, 3, 1, 1)
        for values in (checkpoint.preprocess.mean, checkpoint.preprocess.std)
    )
    with torch.no_grad():
        model((torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std)
    for name, norm in batch_norms(model).items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert torch.allclose(
            adapted.state_dict[f"{name}.running_mean"], norm.running_mean, rtol=1e-3, atol=1e-4
        ), name
        # PyTorch's is the unbiased variance.
        count = len(pixels) if isinstance(norm, nn.BatchNorm1d) else None
        expected = norm.running_var * ((count - 1) / count if count else 1)
        assert torch.allclose(adapted.state_dict[f"{name}.running_var"], expected, rtol=2e-2, atol=1e-4), name
    assert adapted.adaptation is not None
    assert (adapted.adaptation.mix, adapted.adaptation.num_crops) == (1.0, 24)


def test_a_mixture_lies_between_and_leaves_the_rest(exported: Exported, pixels: np.ndarray) -> None:
    """Of the stem it is the weighted mean of both; weights stay, and so does the network that was asked."""
    checkpoint = load_checkpoint(exported.checkpoint)
    network = SiteNetwork(checkpoint)
    before = network.moments(pixels)
    whole, some = network.adapted(pixels, 1.0), network.adapted(pixels, 0.25)
    stem = f"{next(iter(before))}.running_mean"
    expected = 0.75 * checkpoint.state_dict[stem] + 0.25 * whole.state_dict[stem]
    assert torch.allclose(some.state_dict[stem], expected, atol=1e-6)
    changed = {
        key for key, value in checkpoint.state_dict.items() if not torch.equal(value, some.state_dict[key])
    }
    assert changed
    assert all(key.endswith(("running_mean", "running_var")) for key in changed)
    after = network.moments(pixels)
    assert all(torch.allclose(before[name], after[name]) for name in before)
    assert some.adaptation != network.adapted(pixels[:20], 0.25).adaptation


def test_cameras_take_turns_in_what_is_drawn() -> None:
    """As many of each as there are, in an order that mixes them, the same every time."""
    camids = np.array([3] * 50 + [0] * 10 + [7] * 50)
    drawn = drawn_evenly(camids, 60)
    assert sorted(np.bincount(camids[drawn], minlength=8)[[0, 3, 7]]) == [10, 25, 25]
    assert len(set(camids[drawn[:3]])) == 3
    assert len(set(drawn.tolist())) == 60
    assert np.array_equal(drawn, drawn_evenly(camids, 60))
    assert sorted(drawn_evenly(camids, 1000).tolist()) == list(range(110))


def test_padded_crops_keep_their_size_and_content() -> None:
    """What is cut out of the padded crop is the crop, moved by at most ten 128ths of the width, with black around."""
    pixels = np.full((50, 64, 32, 3), 200, np.uint8)
    cut = padded_and_cut(pixels)
    assert cut.shape == pixels.shape
    assert set(np.unique(cut).tolist()) == {0, 200}
    assert (cut[:, 2:-2, 2:-2] == 200).all()


@pytest.mark.parametrize(
    ("measured", "mix"),
    [
        (Divergence(stem=0.001, neck=0.0, mean=0.0003), 0.0),
        (Divergence(stem=0.1, neck=0.06, mean=0.01), 0.375),
        (Divergence(stem=0.1, neck=0.9, mean=0.2), 0.5),
        (Divergence(stem=0.1, neck=None, mean=0.0015), 0.05),
        (Divergence(stem=0.1, neck=None, mean=0.015), 0.5),
    ],
)
def test_the_mix_grows_with_the_distance(measured: Divergence, mix: float) -> None:
    """Nothing for what is alike, a half for a site as far as another data set, by the neck where there is one."""
    assert needed_mix(measured) == pytest.approx(mix)
