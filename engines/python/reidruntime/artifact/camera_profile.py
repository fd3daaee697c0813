"""Camera profiles: what every camera of a site does to features, measured there, to be taken off again.

A camera's light, color and angle move the features of everybody it sees. Of a feature f that camera c saw

    (f - mean[c]) / deviation[c]

is left, element by element in float32; then unit length, where the artifact's features have it. ``reidexport adapt``
measures the means and deviations on crops of the site, without a label, and writes them as ``NAME.cameras.json``.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from reidruntime.artifact.manifest import (
    FrozenModel,
    Manifest,
    PositiveInt,
    Producer,
    content_sha256,
    file_sha256,
    model_from_json,
)
from reidruntime.errors import ArtifactError, InputError

PROFILE_VERSION: Final = 1
PROFILE_SUFFIX = ".cameras.json"
UnknownCamera = Literal["refuse", "mean"]
UNKNOWN_CAMERA: tuple[UnknownCamera, ...] = get_args(UnknownCamera)
Camid = Annotated[int, Field(ge=0, le=10**18, description="number of the camera, from 0")]
Camids = Sequence[int] | NDArray[np.int64]
Places = NDArray[np.int64]
_SMALLEST_NORM = 1e-12
_MEASURE_AGAIN = "Write it again with reidexport adapt"


class HashedFile(FrozenModel):
    """An ONNX file by its name, without a folder, and the sha256 of its bytes."""

    name: Annotated[str, Field(pattern=r"^[^/\\]+$")]
    sha256: str


class FeatureStatistics(FrozenModel):
    """Mean and standard deviation of every element of the features of some crops."""

    num_crops: PositiveInt
    mean: tuple[float, ...]
    deviation: tuple[Annotated[float, Field(gt=0)], ...]


class CameraStatistics(FeatureStatistics):
    """Those of the crops of one camera.

    Attributes:
        camid: number of the camera, from 0.
        network: the file that embeds its images, where every camera has a network of its own.
    """

    camid: Camid
    network: HashedFile | None = None


class CameraProfile(FrozenModel):
    """What ``NAME.cameras.json`` holds.

    Attributes:
        artifact: the ONNX file whose features were measured; engines that are built from it answer alike.
        standardizes: whether features are standardized; false where that was found to cost more than it gives.
        all_crops: of the features of all crops: for images of cameras that are not known, and of a site whose crops
            tell no camera.
        cameras: of each camera's own crops, in order of camid; none where crops tell no camera.
    """

    format_version: Literal[1] = PROFILE_VERSION
    producer: Producer
    artifact: HashedFile
    standardizes: bool
    all_crops: FeatureStatistics
    cameras: tuple[CameraStatistics, ...] = ()

    def to_json(self) -> str:
        """The profile as compact JSON text."""
        return self.model_dump_json()

    @property
    def sha256(self) -> str:
        """Hash of the JSON text: ties embeddings to the exact profile that they were made with."""
        return content_sha256(self)

    @property
    def has_networks(self) -> bool:
        """Whether a camera has a network of its own."""
        return any(camera.network for camera in self.cameras)

    @property
    def changes_features(self) -> bool:
        """Whether anything is done to features because of a camera."""
        return self.standardizes or self.has_networks


def camera_profile_path(artifact: Path) -> Path:
    """The profile that ``adapt`` writes beside an artifact: ``NAME.onnx`` → ``NAME.cameras.json``."""
    return artifact.with_name(artifact.stem + PROFILE_SUFFIX)


def profile_from_json(text: str | bytes, origin: str) -> CameraProfile:
    """Parse and validate a camera profile.

    Args:
        text: JSON as written by :meth:`CameraProfile.to_json`.
        origin: what to call the source in an error message.

    Raises:
        ArtifactError: it is not JSON, is of another format version, or lacks or misspells a field; or its means and
            deviations are not all of one length; or a camera is there twice.
    """
    profile = model_from_json(CameraProfile, text, origin, "the camera profile", _MEASURE_AGAIN)
    every = (profile.all_crops, *profile.cameras)
    if len({len(values) for each in every for values in (each.mean, each.deviation)}) > 1:
        raise ArtifactError(f"{origin}: its means and deviations differ in length. {_MEASURE_AGAIN}.")
    with np.errstate(over="ignore"):
        numbers = np.array([(each.mean, each.deviation) for each in every], np.float32)
    if not np.isfinite(numbers).all() or numbers[:, 1].min(initial=1) <= 0:
        raise ArtifactError(
            f"{origin}: expected means and positive deviations that float32 holds. {_MEASURE_AGAIN}."
        )
    camids = [camera.camid for camera in profile.cameras]
    if camids != sorted(set(camids)):
        raise ArtifactError(
            f"{origin}: expected each camera once, in order, got camids {camids}. {_MEASURE_AGAIN}."
        )
    return profile


def read_camera_profile(path: Path, artifact: Path, manifest: Manifest) -> CameraProfile:
    """Read a profile, and check that it was measured on an artifact's features.

    Args:
        path: ``NAME.cameras.json``.
        artifact: an ONNX file, or an engine.
        manifest: of the artifact.

    Raises:
        ArtifactError: the profile cannot be read or is not valid, or belongs to another artifact.
    """
    try:
        profile = profile_from_json(path.read_bytes(), str(path))
    except OSError as error:
        raise ArtifactError(f"{path}: the camera profile cannot be read ({error.strerror}).") from error
    own = manifest.engine.onnx_sha256 if manifest.engine else file_sha256(artifact)
    if profile.artifact.sha256 != own:
        raise ArtifactError(
            f"{path}: the profile was measured on the features of {profile.artifact.name} (sha256 "
            f"{profile.artifact.sha256[:12]}…), and {artifact} is another file ({own[:12]}…). Pass the profile that "
            "was written with it, or leave it out."
        )
    dim = manifest.architecture.feature_dim
    if len(profile.all_crops.mean) != dim:
        raise ArtifactError(
            f"{path}: the profile is of features of {len(profile.all_crops.mean)} elements, those of {artifact} have "
            f"{dim}. {_MEASURE_AGAIN}."
        )
    if manifest.engine and profile.has_networks:
        raise ArtifactError(
            f"{path}: the profile has an ONNX file for each camera, and {artifact} is an engine. Open "
            f"{profile.artifact.name}, or adapt without --per-camera."
        )
    return profile


def manifest_with_profile(manifest: Manifest, profile: CameraProfile) -> Manifest:
    """The manifest of features that a profile has changed: they cannot be compared with others."""
    if not profile.changes_features:
        return manifest
    return manifest.model_copy(update={"cameras_sha256": profile.sha256})


class Standardizer:
    """A profile's arithmetic, ready for features.

    Attributes:
        camids: of the cameras that have statistics of their own, in order.
        refuses_unknown: whether images of other cameras are refused.
    """

    def __init__(self, profile: CameraProfile, unknown: UnknownCamera, *, unit_length: bool) -> None:
        """Prepare it.

        Args:
            profile: of the site.
            unknown: what to do with images of a camera that the profile does not have: ``"refuse"`` them, or take the
                ``"mean"`` of all crops.
            unit_length: make rows of unit length afterwards.
        """
        every = (*profile.cameras, profile.all_crops)
        self._means = np.array([each.mean for each in every], np.float32)
        self._deviations = np.array([each.deviation for each in every], np.float32)
        self._is_needed, self._unit_length = profile.standardizes, unit_length
        self.refuses_unknown = bool(profile.cameras) and unknown == "refuse"
        self.camids = np.array([camera.camid for camera in profile.cameras], np.int64)
        self._camids_and_none = np.append(self.camids, -1)  # what searchsorted answers may be beyond the last

    def places(self, camids: Camids, name_of: Callable[[int], str]) -> Places:
        """Where the statistics for images stand, by their cameras; the last place is that of all crops.

        Args:
            camids: of N images, from 0.
            name_of: what to call the image at a position in an error.

        Raises:
            InputError: a camera is not in the profile, and is to be refused.
        """
        wanted = np.asarray(camids, np.int64)
        places = np.searchsorted(self.camids, wanted)
        is_known = self._camids_and_none[places] == wanted
        if is_known.all():
            return places
        if self.refuses_unknown:
            first = int(np.flatnonzero(~is_known)[0])
            camid = int(wanted[first])
            known = ", ".join(str(camid + 1) for camid in self.camids)
            found, advice = f"is of camera {camid + 1}", "Adapt again with crops of all cameras"
            if camid < 0:
                found = "does not tell its camera"
                advice = "Name it <track>_c<camera>_…, or pass --labels (in Python: camids)"
            raise InputError(
                f"{name_of(first)} {found}, and the camera profile is of cameras {known}. {advice}; or take the mean "
                'of all crops for it: --unknown-camera mean (in Python: SessionOptions(unknown_camera="mean")).'
            )
        return np.where(is_known, places, len(self.camids))

    def __call__(self, features: NDArray[np.float32], places: Places) -> NDArray[np.float32]:
        """Features less the mean of their camera, over its deviation: float32 (N, D), with N places."""
        if not self._is_needed:
            return features
        rows = (features - self._means[places]) / self._deviations[places]
        if self._unit_length:
            norms = np.sqrt(np.square(rows, dtype=np.float64).sum(1, keepdims=True))
            rows = (rows / np.maximum(norms, _SMALLEST_NORM)).astype(np.float32)
        return rows
