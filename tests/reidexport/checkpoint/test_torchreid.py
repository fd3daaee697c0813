"""What torchreid's and LightMBN's networks leave open, and what is refused of them."""

from pathlib import Path

import pytest
import torch

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.checkpoint.loading import load_checkpoint, model_from_checkpoint
from reidexport.errors import CheckpointError, InputError
from reidexport.evaluation.opening import recorded_choices
from reidexport.export.graph import graph_from_checkpoint, manifest_of_graph
from reidexport.models.resnet_variants import Strips
from tests.standins import checkpoints
from tests.standins.checkpoints import expected, golden_cases, golden_images, normalized, relative_l2
from tests.standins.state_dicts import Load, refusal


@pytest.fixture(scope="module")
def light_mbn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A golden case of LightMBN as its project saves it."""
    path = tmp_path_factory.mktemp("light_mbn") / "model_latest.pth"
    torch.save(checkpoints.golden_weights("lm_lmbn_n"), path)
    return path


def test_parts_of_unit_length_are_assumed_of_light_mbn_and_can_be_told(light_mbn: Path) -> None:
    """LightMBN evaluates with each part at unit length, boxmot does not: told so, the answer is the BatchNorms' own."""
    images, wanted = golden_images("lm_lmbn_n"), torch.from_numpy(expected("lm_lmbn_n", "f_i"))
    assumed = load_checkpoint(light_mbn)
    assert any(
        "its 7 parts each of unit length" in text and "--unit-parts" in text for text in assumed.assumed
    )
    assert "boxmot's lmbn_n up to version 20" in assumed.lookalikes
    told = load_checkpoint(light_mbn, CheckpointChoices(unit_parts=False))
    assert told.origins["unit_parts"] == "told"
    with torch.inference_mode():
        _, found = model_from_checkpoint(told)(normalized(images))
    parts = found.unflatten(1, (512, 7))
    assert relative_l2((parts / parts.norm(dim=1, keepdim=True)).flatten(1), wanted) < 1e-4
    assert relative_l2(found, wanted) > 0.1
    manifest = manifest_of_graph(graph_from_checkpoint(told))
    assert recorded_choices(manifest).unit_parts is False


def test_other_networks_have_no_parts(load: Load) -> None:
    """--unit-parts is refused where a feature has no parts."""
    weights = checkpoints.golden_weights("tr_mobilenetv2_x1_0")
    with pytest.raises(
        InputError, match=r"feature of mobilenetv2_x1_0 is not made of parts: leave --unit-parts out"
    ):
        load(weights, unit_parts=True)


def test_hacnn_takes_one_size(load: Load) -> None:
    """HACNN's regions are of fixed sizes: another size of images is refused, as upstream does."""
    checkpoint = load(checkpoints.golden_weights("tr_hacnn"), size=(256, 128))
    with pytest.raises(InputError, match=r"hacnn takes images of 160x64 px only: leave --size out"):
        graph_from_checkpoint(checkpoint)


def test_pcb_without_classifiers_is_refused(load: Load) -> None:
    """The number of a PCB's parts is that of its classifiers; without them nobody can know it."""
    shapes = golden_cases()["tr_pcb_p4"]["shapes"]
    weights = {
        key: torch.ones(shape[:1]) for key, shape in shapes.items() if not key.startswith("classifier.")
    }
    assert "it is a torchreid PCB without its classifiers" in refusal(load, weights)


@pytest.mark.parametrize(("height", "count"), [(16, 4), (16, 6), (17, 4), (24, 6)])
def test_strips_are_those_of_adaptive_pooling(height: int, count: int) -> None:
    """Strips of any map are torch's adaptive average pooling, at unit length."""
    x = torch.randn((2, 5, height, 3), generator=torch.Generator().manual_seed(height))
    pooled = torch.nn.functional.adaptive_avg_pool2d(x, (count, 1))[..., 0]
    wanted = torch.nn.functional.normalize(pooled, dim=1).flatten(1)
    assert relative_l2(Strips(count)(x), wanted) < 1e-6


def test_a_backbone_of_another_kind_is_compared_where_it_is_told(load: Load) -> None:
    """--arch compares with a backbone that no name points to, and says what differs."""
    weights = checkpoints.golden_weights("tr_mobilenetv2_x1_0")
    message = refusal(load, weights, arch="shufflenet")
    assert "no known torchreid architecture has these weights. Nearest: shufflenet" in message
    with pytest.raises(
        CheckpointError, match=r"--arch vgg16: torchreid has no such backbone; it has mobilenetv2"
    ):
        load(weights, arch="vgg16")
