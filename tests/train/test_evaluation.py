"""The test split scored from pixels in memory, as from its files."""

import numpy as np
import pytest
import torch

from reidexport.data import Dataset
from reidexport.errors import InputError
from reidexport.export.graph import GraphOptions
from train.evaluation import (
    PixelEmbedder,
    checkpoint_in_memory,
    evaluate_checkpoint,
    fits_on_gpu,
    load_test_images,
)
from train.model import build_model
from train.recipe import load_recipe

CPU = torch.device("cpu")


@pytest.mark.parametrize("feature", ["f_i", "f_t"])
def test_pixels_in_memory_score_as_files_do(feature: str, drawn_dataset: Dataset) -> None:
    """The same features, to float32's rounding in another batch and layout, in the same order; the same scores."""
    checkpoint = checkpoint_in_memory(build_model(load_recipe("smoke"), 4), 64, 32)
    images = load_test_images(drawn_dataset, 64, 32, CPU, workers=2)
    found, expected = (
        evaluate_checkpoint(checkpoint, drawn_dataset, metric="cosine", feature=feature, images=each)  # type: ignore[arg-type]
        for each in (images, None)
    )
    for one, other in ((found.q_feats, expected.q_feats), (found.g_feats, expected.g_feats)):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert found.metrics.as_dict() == expected.metrics.as_dict()
    assert found.manifest == expected.manifest


def test_pixels_in_memory_have_no_camera_profile(drawn_dataset: Dataset) -> None:
    """Cameras are refused, not left out in silence."""
    images = load_test_images(drawn_dataset, 64, 32, CPU, workers=1)
    checkpoint = checkpoint_in_memory(build_model(load_recipe("smoke"), 4), 64, 32)
    with pytest.raises(InputError, match=r"no camera profile\. Leave camids out"):
        PixelEmbedder(checkpoint, images, GraphOptions()).embed([drawn_dataset.query[0].path], camids=[0])


def test_half_of_the_free_memory_is_enough(drawn_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the pixels' bytes must be free, not one less."""
    needed = (len(drawn_dataset.query) + len(drawn_dataset.scored_gallery)) * 64 * 32 * 3
    for free, fits in ((2 * needed, True), (2 * needed - 1, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 1 << 40))
        assert fits_on_gpu(drawn_dataset, 64, 32, torch.device("cuda")) == fits
