"""The float32 reference on the CPU, with the GPU hidden; what all other checks compare with is left in ``folder``."""

import numpy as np
import pytest
import torch
from PIL import Image
from reidruntime.artifact.manifest import Precision

from reidexport.checkpoint.loading import imagenet_preprocess, load_checkpoint, save_checkpoint
from reidexport.evaluation.torch_session import session_from_checkpoint
from reidexport.export.graph import graph_from_checkpoint
from reidexport.export.onnx_export import onnx_from_graph
from reidexport.models.baseline import BaselineArchitecture, backbone_channels
from tests.golden.seeded import seeded_images
from tests.gpu.conftest import Judge, Setup
from tests.standins.checkpoints import drawn_model


def test_float32(setup: Setup, judge: Judge) -> None:
    """A seeded network answers arrays and JPEG files with finite features, which tell the images apart."""
    assert not torch.cuda.is_available(), "the reference must not see the GPU"
    folder, dim = setup.folder, backbone_channels(BaselineArchitecture(setup.backbone))
    model = drawn_model(BaselineArchitecture(setup.backbone, feature_dim=dim))
    save_checkpoint(folder / "network.pth", model, imagenet_preprocess(*setup.size_px))
    images = seeded_images(*setup.size_px, setup.num_images, 0)
    (folder / "photos").mkdir()
    for index, pixels in enumerate(seeded_images(128, 64, setup.num_images, 1)):
        Image.fromarray(pixels).save(folder / "photos" / f"{index:03}.jpg", quality=95)
    np.save(folder / "images.npy", images)
    checkpoint = load_checkpoint(folder / "network.pth")
    judge.record("network", checkpoint.summary)
    with session_from_checkpoint(checkpoint) as session:
        for name, batch in (("answers_to_arrays", list(images)), ("answers_to_files", setup.photos)):
            features = session.embed(batch, batch_size=8)
            np.save(folder / f"{name}.npy", features)
            unit = features / np.linalg.norm(features, axis=1, keepdims=True)
            nearest = float((unit @ unit.T - 2 * np.eye(len(unit))).max())
            judge.within(0.999, **{f"largest_cosine_of_{name}": nearest})


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_export(precision: Precision, setup: Setup, judge: Judge) -> None:
    """The ONNX files are written; the export compares them with the network itself."""
    graph = graph_from_checkpoint(load_checkpoint(setup.folder / "network.pth"))
    manifest = onnx_from_graph(graph, setup.folder / f"{precision}.onnx", precision=precision)
    judge.record("layer_precisions", manifest.layer_precisions)
    assert precision in manifest.layer_precisions
