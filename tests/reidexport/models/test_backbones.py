"""Backbones of the trainer, from weights to the exported graph."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reidruntime import SessionOptions, open_session
from torch import nn
from torch.nn import functional
from torchvision.models import mobilenet_v2

from reidexport.checkpoint.loading import imagenet_preprocess, load_checkpoint, save_checkpoint
from reidexport.errors import CheckpointError, InputError
from reidexport.export.folding import fold_batch_norms
from reidexport.export.graph import graph_from_checkpoint
from reidexport.export.onnx_export import onnx_from_graph
from reidexport.models import Baseline, BaselineArchitecture
from reidexport.models.baseline import backbone_channels, build_backbone, is_backbone
from reidexport.models.parts import stripe_means
from reidexport.models.trunk import torchvision_names

CONVOLUTIONAL = [
    "mobilenet_v2",
    "timm/resnet18",
    "timm/resnet10t",
    "timm/efficientnet_lite0",
    "timm/mobilenetv3_small_050",
    "timm/regnety_002",
    "timm/repvgg_a0",
]


def seeded(name: str, last_stride: int) -> Baseline:
    """A network whose norms have statistics of their own, so that a fold at the wrong place shows."""
    torch.manual_seed(0)
    architecture = BaselineArchitecture(name, last_stride=1 if last_stride == 1 else 2, num_classes=4)
    model = Baseline(replace(architecture, feature_dim=backbone_channels(architecture)))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.load_state_dict(
                {
                    "weight": torch.empty(module.num_features).uniform_(0.5, 1.5),
                    "bias": torch.empty(module.num_features).normal_(0, 0.2),
                    "running_mean": torch.empty(module.num_features).normal_(0, 0.2),
                    "running_var": torch.empty(module.num_features).uniform_(0.5, 1.5),
                    "num_batches_tracked": torch.tensor(1),
                }
            )
    return model.eval()


def saved(model: Baseline, folder: Path) -> Path:
    """The model as a checkpoint for images of 64x32 px."""
    save_checkpoint(folder / "model.pth", model, imagenet_preprocess(64, 32))
    return folder / "model.pth"


@pytest.mark.parametrize("name", [*CONVOLUTIONAL, "timm/convnext_atto"])
def test_a_backbone_goes_the_whole_way(name: str, tmp_path: Path) -> None:
    """Saved, loaded and folded it gives the features of the network."""
    model = seeded(name, 2 if "convnext" in name else 1)
    graph = graph_from_checkpoint(load_checkpoint(saved(model, tmp_path)))
    images = graph.example(3)
    mean, std = (
        torch.tensor(each).reshape(3, 1, 1) for each in (graph.preprocess.mean, graph.preprocess.std)
    )
    with torch.inference_mode():
        _, expected = model((images.permute(0, 3, 1, 2) / 255 - mean) / std)
        assert float((graph(images) - expected).norm() / expected.norm()) < 1e-5
    assert not any(isinstance(each, nn.BatchNorm2d) for each in graph.modules())


@pytest.mark.parametrize("name", ["mobilenet_v2", "timm/mobilenetv3_small_050"])
def test_its_onnx_file_answers_as_the_graph_does(name: str, tmp_path: Path) -> None:
    """Exported and opened; no BatchNorm is left in the file."""
    import onnx

    graph = graph_from_checkpoint(load_checkpoint(saved(seeded(name, 1), tmp_path)))
    onnx_from_graph(graph, tmp_path / "model.onnx")
    images = graph.example(2)
    with (
        open_session(tmp_path / "model.onnx", SessionOptions("onnxruntime")) as session,
        torch.inference_mode(),
    ):
        torch.testing.assert_close(
            torch.from_numpy(session.run(images.numpy())), graph(images), rtol=1e-3, atol=1e-4
        )
        with open_session(
            tmp_path / "model.onnx", SessionOptions(backend="torch-cuda", device="cpu")
        ) as by_torch:
            found, expected = by_torch.run(images.numpy()), session.run(images.numpy())
        assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)
    operators = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert "BatchNormalization" not in operators


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_a_last_stride_of_1_doubles_the_map(name: str) -> None:
    """And keeps the weights' names and shapes."""
    with torch.device("meta"):
        two, one = (build_backbone(BaselineArchitecture(name, last_stride=stride)) for stride in (2, 1))
        images = torch.empty(1, 3, 256, 128)
        assert two(images).shape[2:] == (8, 4)
        assert one(images).shape[2:] == (16, 8)
    assert two.state_dict().keys() == one.state_dict().keys()


def test_mobilenet_v2_is_torchvision_s() -> None:
    """The same map from the same weights, also from those of the first public port, which names blocks otherwise."""
    torch.manual_seed(0)
    theirs = mobilenet_v2().eval()
    ours = build_backbone(BaselineArchitecture("mobilenet_v2", last_stride=2)).eval()
    features = {key: value for key, value in theirs.state_dict().items() if key.startswith("features.")}
    first = {"0.0": "0", "0.1": "1", "1": "3", "2": "4"}
    nested = {"0.0": "0", "0.1": "1", "1.0": "3", "1.1": "4", "2": "6", "3": "7"}
    flat = {}
    for key, value in features.items():
        head, conv, tail = key.partition(".conv.")
        place, _, kind = tail.rpartition(".")
        names = first if head == "features.1" else nested
        flat[f"{head}.conv.{names[place]}.{kind}" if conv else key] = value
    assert "features.2.conv.7.weight" in flat
    ours.load_state_dict(torchvision_names(flat))
    images = torch.randn(2, 3, 64, 32)
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs.features(images))


@pytest.mark.parametrize(
    ("name", "last_stride", "message"),
    [
        ("timm/mobilenetv2_10", 2, r"timm has no network mobilenetv2_10; it has mobilenetv2_1"),
        ("timm/vit_tiny_patch16_224", 2, "only convolutional networks|does not take images"),
        ("timm/convnext_atto", 1, "its last stride must stay 2"),
    ],
)
def test_what_cannot_be_a_backbone_is_refused(name: str, last_stride: int, message: str) -> None:
    """An unknown name with the nearest ones, a network without maps, a last stride that cannot be 1."""
    with pytest.raises(InputError, match=message):
        build_backbone(BaselineArchitecture(name, last_stride=1 if last_stride == 1 else 2))


def test_a_network_that_cannot_be_traced_cannot_be_exported(tmp_path: Path) -> None:
    """TensorFlow's padding depends on the map's size: the message says so before anything is written."""
    path = saved(seeded("timm/tf_efficientnet_lite0", 2), tmp_path)
    with pytest.raises(InputError, match=r"cannot be exported: torch\.fx cannot trace it"):
        graph_from_checkpoint(load_checkpoint(path))


def test_a_checkpoint_of_an_unknown_backbone_is_refused(tmp_path: Path) -> None:
    """The known ones are listed, and that timm's are too."""
    path = saved(seeded("timm/resnet18", 2), tmp_path)
    content = torch.load(path, weights_only=True)
    content["architecture"]["backbone"] = "timm/resnet_18"
    torch.save(content, path)
    assert not is_backbone("timm/resnet_18")
    with pytest.raises(
        CheckpointError, match=r"'timm/resnet_18' is not known\. Known: resnet18, .*and timm/NAME"
    ):
        load_checkpoint(path)


@pytest.mark.parametrize("height", [24, 23, 13, 6])
def test_stripes_are_cut_as_adaptive_pooling_does(height: int) -> None:
    """Also where their number does not divide the height, and they overlap by a row."""
    x = torch.randn(2, 5, height, 4)
    wanted = functional.adaptive_avg_pool2d(x, (6, 1)).squeeze(3)
    torch.testing.assert_close(stripe_means(x, 6), wanted)


def test_branches_are_merged_for_export() -> None:
    """Of RepVGG's three branches one convolution is left, which answers as they do together."""
    backbone = seeded("timm/repvgg_a0", 2).backbone
    folded = fold_batch_norms(backbone)
    convolutions = [part for part in folded.modules() if isinstance(part, nn.Conv2d)]
    assert len(convolutions) == 1 + 2 + 4 + 14 + 1
    images = torch.randn(2, 3, 64, 32)
    with torch.inference_mode():
        expected = backbone(images)
        assert float((folded(images) - expected).norm() / expected.norm()) < 1e-5
