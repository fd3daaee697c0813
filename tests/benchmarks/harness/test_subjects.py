"""What is measured: artifacts, their peers, and seeded networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from reidruntime import SessionOptions, open_session
from reidruntime.images.preprocess import normalize
from reidruntime.images.resize import resize

from benchmarks.harness.subjects import Subject, open_subject, write_seeded_checkpoint
from benchmarks.peers.peers import torch_network
from reidexport.checkpoint.loading import load_checkpoint
from reidexport.data.synthetic import draw_people
from reidexport.export.graph import graph_from_checkpoint
from tests.conftest import Exported


def test_peers_answer_as_the_artifact_does(exported: Exported) -> None:
    """Bare runtimes, torch eager and the network of the DataLoader pipeline compute the artifact's features."""
    with open_session(exported.onnx, SessionOptions(backend="onnxruntime")) as session:
        subject = Subject(exported.onnx, session, load_checkpoint(exported.checkpoint))
        pixels = subject.pixels(3)
        ours = session.run(pixels)
        for embed in subject.bare_peers().values():
            subject.check(embed(subject.own_input(pixels)), ours)
        subject.check(subject.torch_sides(pixels, compile_mode=None)["torch eager"](), ours)
        planes = session.manifest.preprocess.model_copy(update={"layout": "NCHW"})
        network = torch_network(subject.checkpoint, subject.options)
        subject.check(network(torch.from_numpy(normalize(pixels, planes))).numpy(), ours)
        with pytest.raises(ArithmeticError, match=r"differs by .* in relative L2, expected at most 0\.0001"):
            subject.check(ours[::-1], ours)


def test_an_artifact_of_another_checkpoint_is_refused(exported: Exported, tmp_path: Path) -> None:
    """Torch is a peer only with the weights that the artifact was made from."""
    write_seeded_checkpoint(tmp_path / "other.pth", "osnet_x0_25")
    with pytest.raises(ValueError, match="their hashes differ"):
        open_subject(exported.onnx, "onnxruntime", load_checkpoint(tmp_path / "other.pth"))


def test_seeded_networks_keep_their_activations_moderate(tmp_path: Path) -> None:
    """The features of drawn people are different, and in the range of a trained network's."""
    write_seeded_checkpoint(tmp_path / "seeded.pth", "osnet_x0_25")
    graph = graph_from_checkpoint(load_checkpoint(tmp_path / "seeded.pth"))
    people = np.stack([resize(image, 256, 128, "bilinear") for image in draw_people(4)])
    with torch.inference_mode():
        features = graph(torch.from_numpy(people)).numpy()
    assert 0.1 < np.abs(features).mean() < 10
    assert np.corrcoef(features).min() < 0.9
