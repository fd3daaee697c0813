"""What does a camera profile cost at run time?"""

from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from reidruntime import SessionOptions, open_session
from reidruntime.artifact.camera_profile import HashedFile
from reidruntime.artifact.manifest import file_sha256
from reidruntime.backends import BackendName

from benchmarks.harness.comparison import Compare, ComparisonOptions
from benchmarks.harness.subjects import Subject
from benchmarks.harness.turns import calls_in_a_row
from benchmarks.peers.peers import num_threads
from reidexport.adaptation.camera_statistics import profile_of_features

NUM_CAMERAS = 6


@pytest.mark.parametrize("batch_size", [1, 32])
def test_camera_profile(
    compare: Compare, subject: Subject, batch_size: int, quick: bool, tmp_path: Path
) -> None:
    """The same file, opened with a profile of six cameras and without."""
    if subject.path.suffix != ".onnx":
        pytest.skip("a profile is made for an ONNX file")
    pixels, camids = subject.pixels(batch_size), np.arange(batch_size) % NUM_CAMERAS
    features = np.random.default_rng(0).normal(size=(64 * NUM_CAMERAS, subject.session.run(pixels).shape[1]))
    profile = profile_of_features(
        features.astype(np.float32),
        np.arange(len(features)) % NUM_CAMERAS,
        HashedFile(name=subject.path.name, sha256=file_sha256(subject.path)),
        standardizes=True,
        networks={},
    )
    cameras = tmp_path / "site.cameras.json"
    cameras.write_text(profile.to_json())
    options = SessionOptions(cast(BackendName, subject.session.backend), threads=num_threads())
    with open_session(subject.path, options, cameras=cameras) as session:
        row = compare(
            f"camera profile of {subject}, batch {batch_size}",
            f"batch {batch_size}, warm, same pixels and threads: uint8 pixels in memory to float32 features, "
            "standardized by camera or not; each turn is calls in a row for 0.3 s",
            lambda: session.run(pixels, camids),
            {"the same without a profile": lambda: subject.session.run(pixels)},
            ComparisonOptions(rounds=60, measure=partial(calls_in_a_row, at_least_s=0.02 if quick else 0.3)),
        )
    row |= subject.about(batch_size=batch_size)
