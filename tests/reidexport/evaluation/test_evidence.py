"""What BatchNorms remember of their training, as a test of what is assumed."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from reidruntime.images.resize import resize
from torch import nn

from reidexport.checkpoint.loading import Checkpoint, checkpoint_facts, imagenet_preprocess
from reidexport.data.synthetic import draw_people
from reidexport.errors import InputError
from reidexport.evaluation.batch_norm_moments import divergence, measured_moments
from reidexport.evaluation.evidence import check_assumptions
from reidexport.models.baseline import Baseline, BaselineArchitecture, batch_norms

RIGHT = BaselineArchitecture("resnet18", last_stride=1, stem_relu=True, feature_dim=512)
PIXELS = imagenet_preprocess(64, 32)
ALL = (
    "last_stride",
    "stem_relu",
    "stem_pool",
    "pooling",
    "batch_norm_eps",
    "mean",
    "std",
    "channel_order",
    "resize",
)

Images = list[NDArray[np.uint8]]


@pytest.fixture(scope="module")
def images() -> Images:
    """Seeded people, larger than what the network takes."""
    return draw_people(64)


@pytest.fixture(scope="module")
def trained(images: Images) -> dict[str, torch.Tensor]:
    """Weights whose BatchNorms saw these people through the right network and preprocessing."""
    torch.manual_seed(0)
    model = Baseline(RIGHT)
    for norm in batch_norms(model).values():
        norm.momentum = None  # the plain average
    sized = np.stack([resize(image, 64, 32, "bilinear") for image in images])
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (PIXELS.mean, PIXELS.std))
    with torch.no_grad():
        model.train()((torch.from_numpy(sized).permute(0, 3, 1, 2).float() / 255 - mean) / std)
    return {key: tensor for key, tensor in model.state_dict().items() if "num_batches" not in key}


def checkpoint(state_dict: dict[str, torch.Tensor], assumed: tuple[str, ...], **wrong: Any) -> Checkpoint:
    """The trained weights, some facts assumed and some of these wrong, the others read."""
    pixels = {name: wrong.pop(name) for name in ("mean", "std", "channel_order", "resize") if name in wrong}
    architecture, preprocess = replace(RIGHT, **wrong), PIXELS.model_copy(update=pixels)
    facts = checkpoint_facts(architecture, preprocess, state_dict, {})
    facts = tuple(replace(fact, origin="assumed" if fact.name in assumed else "read") for fact in facts)
    return Checkpoint("model.pth", "", "tests", "state dict", architecture, preprocess, state_dict, facts)


def test_right_assumptions_hold(trained: dict[str, torch.Tensor], images: Images) -> None:
    """What is right fits best, without a warning, and is called tested; what nothing can tell stays assumed."""
    found, evidence = check_assumptions(checkpoint(trained, ALL), images)
    assert evidence.fits[0].changed == ()
    assert evidence.warnings == ()
    assert evidence.fits[0].divergence < 1e-3
    assert {found.origins[name] for name in ("last_stride", "stem_relu", "pooling", "mean", "channel_order")} == {
        "tested"
    }  # fmt: skip
    assert found.origins["backbone"] == "read"


@pytest.mark.parametrize(
    ("wrong", "truth"),
    [
        ({"last_stride": 2}, "last stride 1 (--last-stride)"),
        ({"stem_relu": False}, "a ReLU after the stem (--stem-relu)"),
        ({"stem_pool": "2x2"}, "stem pooling 3x3, padded (--stem-pool)"),
        ({"pooling": "max"}, "average pooling (--pooling)"),
        ({"channel_order": "BGR"}, "RGB channels (--channel-order)"),
        ({"resize": "bicubic"}, "bilinear resizing (--resize)"),
    ],
)
def test_a_wrong_assumption_is_found(
    wrong: dict[str, Any], truth: str, trained: dict[str, torch.Tensor], images: Images
) -> None:
    """The right value is nearest by far, and the warning names it with its option; the wrong one stays assumed."""
    name = next(iter(wrong))
    assumed = ("mean", "std", name) if name == "channel_order" else (name,)
    found, evidence = check_assumptions(checkpoint(trained, assumed, **wrong), images)
    assert evidence.fits[0].changed == (truth,)
    assert f"than what is assumed: {truth}. State it, or say why not." in evidence.warnings[0]
    assert found.origins[name] == "assumed"


def test_two_wrong_assumptions_are_found_together(trained: dict[str, torch.Tensor], images: Images) -> None:
    """From the nearest alternative the others are varied again."""
    wrong = checkpoint(
        trained, ("last_stride", "channel_order", "mean", "std"), last_stride=2, channel_order="BGR"
    )
    _, evidence = check_assumptions(wrong, images)
    assert evidence.fits[0].changed == ("last stride 1 (--last-stride)", "RGB channels (--channel-order)")


def test_other_images_fit_nothing(trained: dict[str, torch.Tensor]) -> None:
    """Noise is far from what was recorded, whatever is assumed, and this is said."""
    noise = list(np.random.default_rng(0).integers(0, 256, (32, 64, 32, 3), np.uint8))
    _, evidence = check_assumptions(checkpoint(trained, ("stem_relu",)), noise)
    assert any(warning.startswith("nothing fits: even the nearest") for warning in evidence.warnings)


def test_statistics_of_the_file_are_no_alternative_to_themselves(
    trained: dict[str, torch.Tensor], images: Images
) -> None:
    """Mean and std as float32 gives them are the same ones; read from the file, they stay while the order is varied."""
    rounded = tuple(float(np.float32(value)) for value in PIXELS.mean)
    found, evidence = check_assumptions(checkpoint(trained, ("channel_order",), mean=rounded), images)
    assert [fit.changed for fit in evidence.fits] == [(), ("BGR channels (--channel-order)",)]
    assert found.origins["channel_order"] == "tested"


def test_too_few_images_are_refused(trained: dict[str, torch.Tensor], images: Images) -> None:
    """A handful of images shows no statistics."""
    with pytest.raises(InputError, match="needs at least 32 images, got 31"):
        check_assumptions(checkpoint(trained, ALL), images[:31])


@pytest.mark.parametrize("shape", [(6, 8, 5, 3), (6, 8)], ids=["maps", "vectors"])
def test_moments_are_those_of_all_images(shape: tuple[int, ...]) -> None:
    """Over several batches and calls, far from 0: the count, the sums and those of squares by the definition."""
    x = torch.randn(shape) + 30
    norm = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(8).eval()
    model = cast(Baseline, nn.Sequential(norm))
    moments: Mapping[str, torch.Tensor] = {}
    for batches in ((x[:1],), (x[1:3], x[3:])):
        with measured_moments(model, moments) as met:
            for batch in batches:
                model(batch)
        moments = met
    pixels = x.double().movedim(1, -1).reshape(-1, 8)
    expected = torch.stack((torch.full((8,), len(pixels)), pixels.sum(0), pixels.square().sum(0)))
    torch.testing.assert_close(moments["0"], expected, rtol=1e-6, atol=0)


def test_divergence_is_that_of_gaussians() -> None:
    """Median over channels of the symmetric Kullback-Leibler divergence, integrated numerically."""
    norm = nn.BatchNorm1d(3, eps=0.0)
    norm.running_mean, norm.running_var = torch.tensor([0.0, 1.0, -1.0]), torch.tensor([1.0, 2.0, 0.5])
    means, variances = torch.tensor([0.5, 1.0, 1.0]).double(), torch.tensor([1.5, 1.0, 0.5]).double()
    x = np.linspace(-30, 30, 200_001)

    def density(mean: float, variance: float) -> NDArray[np.float64]:
        return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)

    expected = []
    for channel in range(3):
        p = density(float(norm.running_mean[channel]), float(norm.running_var[channel])) + 1e-300
        q = density(float(means[channel]), float(variances[channel])) + 1e-300
        expected.append(np.trapezoid((p - q) * np.log(p / q), x))
    moments = torch.stack((torch.full((3,), 8.0).double(), 8 * means, 8 * (variances + means.square())))
    assert divergence(norm, moments) == pytest.approx(np.median(expected), rel=1e-4)
