"""Camera profiles of drawn numbers, for tests of what reads and applies them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from reidruntime.artifact.camera_profile import (
    CameraProfile,
    CameraStatistics,
    FeatureStatistics,
    HashedFile,
    camera_profile_path,
)
from reidruntime.artifact.manifest import Producer, file_sha256


def small_profile(
    artifact: Path,
    dim: int,
    camids: Sequence[int] = (0, 2),
    *,
    networks: Mapping[int, Path] | None = None,
    standardizes: bool = True,
) -> CameraProfile:
    """A profile of an artifact with means and deviations that no two cameras share."""

    def numbers(seed: int) -> FeatureStatistics:
        rng = np.random.default_rng(seed)
        mean, deviation = rng.normal(size=dim).astype(np.float32), rng.uniform(0.5, 2, dim).astype(np.float32)
        return FeatureStatistics(
            num_crops=64 + seed, mean=tuple(mean.tolist()), deviation=tuple(deviation.tolist())
        )

    files = {
        camid: HashedFile(name=path.name, sha256=file_sha256(path))
        for camid, path in (networks or {}).items()
    }
    return CameraProfile(
        producer=Producer(name="tests", version="0"),
        artifact=HashedFile(name=artifact.name, sha256=file_sha256(artifact)),
        standardizes=standardizes,
        all_crops=numbers(100),
        cameras=tuple(
            CameraStatistics(camid=camid, network=files.get(camid), **dict(numbers(camid)))
            for camid in camids
        ),
    )


def write_profile(profile: CameraProfile, artifact: Path) -> Path:
    """The profile as a file beside its artifact, as ``adapt`` writes it."""
    path = camera_profile_path(artifact)
    path.write_text(profile.to_json())
    return path
